// Dense convolutions side by side, with windows of any dilation, on GPUs of compute capability 9.0: what they take, and
// their entry point.
#pragma once

#include "common/activation.h"
#include "cuda/device.h"
#include "cuda/runtime.h"

namespace mobilevit_fast::cuda {

constexpr int kAtrousSm90Most = 4;  // convolutions of a launch
// Outputs of a convolution that there are kernels for; ASPP's have the most.
constexpr int kAtrousSm90Outputs[] = {256, 160, 128, 96, 64}, kAtrousSm90Aspp = kAtrousSm90Outputs[0];
constexpr int kAtrousSm90Width = 8, kAtrousSm90Height = 16;  // of a tile

// Weights are packed as they lie in shared memory, (taps, channels / chunk, outputs, chunk)
// (mobilevit_fast/kernels/cuda/sm90/atrous.py).
struct AtrousSm90Convolution {
  const Bytes16* weight;
  const float *scale, *bias;  // (outputs,)
  int taps, rate;             // one tap, or nine that are `rate` pixels apart
};

// All convolutions are over the same images, dense channels_last on multiples of 16 bytes. Results of the i-th are
// activation(scale * conv(x) + bias) at elements i * outputs and on of each pixel.
struct AtrousSm90Params {
  const void* x;            // (images, height, width, channels)
  void* y;                  // (images, height, width, count * outputs)
  const float* image_bias;  // (images, outputs), instead of the bias; or null
  AtrousSm90Convolution convolutions[kAtrousSm90Most];
  int count, images, height, width, channels;
  Activation activation;
  int outputs;  // of a convolution
};

// Whether weights of an ASPP are packed for these kernels as well.
inline bool atrous_sm90_has(int64_t channels, int64_t features, int64_t outputs, int64_t rates) {
  return features == kAtrousSm90Aspp && outputs == kAtrousSm90Aspp && channels % 16 == 0 && rates < kAtrousSm90Most;
}

// Input channels that come to shared memory at once; 0 where the kernels cannot have so many.
inline int atrous_sm90_chunk(int64_t channels) { return channels % 32 == 0 ? 32 : channels % 16 == 0 ? 16 : 0; }

// Outputs of each of the equal slices, at most kAtrousSm90Most, that a single convolution is launched as; 0 where there
// are no kernels for it.
inline int atrous_sm90_slice(int64_t channels, int64_t outputs) {
  if (atrous_sm90_chunk(channels) == 0) return 0;
  for (const int slice : kAtrousSm90Outputs) {
    if (outputs % slice == 0 && outputs / slice >= 1 && outputs / slice <= kAtrousSm90Most) return slice;
  }
  return 0;
}

// Launches the kernel over elements T; cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t atrous_sm90(const AtrousSm90Params& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
