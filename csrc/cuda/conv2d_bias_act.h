// Dense convolution on a GPU: entry point.
#pragma once

#include "conv2d_input.h"
#include "runtime.h"

namespace mobilevit_fast::cuda {

// Scale and bias are float32, zero beyond the outputs up to a multiple of 16, and read in pairs.
struct Conv2dBiasActParams : Conv2dInput {
  void* y;  // (batch, out_h, out_w, outputs)
  const Float2 *scale, *bias;
  Activation activation;
};

// Launches the kernel of params.tile (conv2d_bias_act_tiles.h); cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t conv2d_bias_act(const Conv2dBiasActParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
