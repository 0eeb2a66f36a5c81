// Depthwise convolution on a GPU: entry point.
#pragma once

#include <cuda_runtime.h>

#include "depthwise_conv2d_kernel.h"

namespace mobilevit_fast::cuda {

// Launches the kernel for this window with square tiles of 16 or 8 pixels; cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t depthwise_conv2d(const DepthwiseConv2dParams& params, int kernel, int stride, int tile,
                             cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
