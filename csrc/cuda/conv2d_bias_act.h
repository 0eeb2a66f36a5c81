// Dense convolution on a GPU: entry point.
#pragma once

#include <cuda_runtime.h>

#include "conv2d_bias_act_kernel.h"

namespace mobilevit_fast::cuda {

// Launches the kernel of params.tile (conv2d_bias_act_tiles.h); cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t conv2d_bias_act(const Conv2dBiasActParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
