// Dense convolution on a GPU: entry point.
#pragma once

#include "conv2d_input.h"
#include "cuda/runtime.h"

namespace mobilevit_fast::cuda {

// Where the result goes: all of a tensor, or some of its channels. Where both outputs and pitch are multiples of 4,
// four elements are written at once, and y has to be a multiple of 8 bytes.
struct Conv2dResults {
  void* y;                   // (batch, out_h, out_w, outputs)
  int pitch;                 // elements from pixel to pixel
  const Float2* image_bias;  // (batch, outputs up to a multiple of 16), instead of the bias; or null

  bool aligned(int outputs) const { return (outputs | pitch) % 4 != 0 || reinterpret_cast<uintptr_t>(y) % 8 == 0; }
};

// Scale and bias are float32, zero beyond the outputs up to a multiple of 16, and read in pairs.
struct Conv2dBiasActParams : Conv2dInput {
  Conv2dResults results;
  const Float2 *scale, *bias;
  Activation activation;
};

// Launches the kernel of params.tile (conv2d_bias_act_tiles.h); cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t conv2d_bias_act(const Conv2dBiasActParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
