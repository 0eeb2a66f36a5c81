// Dense convolution on a GPU: entry point.
#pragma once

#include "conv2d_input.h"
#include "runtime.h"

namespace mobilevit_fast::cuda {

// Where the result goes: all of a tensor, or some of its channels. A pitch that is a multiple of 4, as the outputs and
// the place of the first of them, lets four be written at once.
struct Conv2dResults {
  void* y;                   // (batch, out_h, out_w, outputs)
  int pitch;                 // numbers from pixel to pixel
  const Float2* image_bias;  // (batch, outputs up to a multiple of 16), instead of the bias; or null
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
