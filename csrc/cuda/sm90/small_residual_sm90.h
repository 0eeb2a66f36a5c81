// Inverted residuals of few images on compute capability 9.0: parameters and entry points.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/runtime.h"

namespace mobilevit_fast::cuda {

// A depthwise window of 3x3, a margin of one pixel, silu behind expansion and depthwise convolution, and a residual
// where the stride is 1 and there are as many outputs as inputs. Images are dense in channels_last order.
struct SmallResidualParams {
  const void* x;           // (batch, height, width, channels)
  void* y;                 // (batch, out_h, out_w, outputs)
  const Bytes16* weights;  // of a slice of the expanded channels after another
  int batch, height, width, out_h, out_w;
  int channels, expanded, outputs, stride;
};

// Bytes of `weights`; 0 where there is no kernel for so many channels.
int64_t small_residual_weight_bytes(int channels, int expanded, int outputs);
// Blocks of the kernel for these parameters; 0 where there is none.
int64_t small_residual_blocks(const SmallResidualParams& params);
// Launches it over elements T; cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t small_residual(const SmallResidualParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
