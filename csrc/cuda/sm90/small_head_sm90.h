// Classifier heads of few images on compute capability 9.0: parameters and entry points.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/runtime.h"

namespace mobilevit_fast::cuda {

// Silu is the activation of the expansion. Images are dense in channels_last order.
struct SmallHeadParams {
  const void* x;               // (batch, pixels, channels)
  void* y;                     // (batch, classes)
  const Bytes16* expand;       // (expanded / 8, channels / 32, 32) times 16 bytes: fragments of two steps
  const float *scale, *shift;  // (expanded), of the expansion
  const void* weight;          // (classes, expanded), and zeros up to small_head_rows
  const float* bias;           // (classes), and zeros
  int batch, pixels, channels, expanded, classes;
};

// Classes with those that fill the last block; 0 where there is no kernel for so many channels and classes.
int small_head_rows(int channels, int expanded, int classes);
constexpr int kSmallHeadPixels = 64;  // of an image, at most
// Launches the kernel over elements T; cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t small_head(const SmallHeadParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
