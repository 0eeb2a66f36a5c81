// Dense convolution of images of few channels on a GPU: entry point.
#pragma once

#include <cuda_runtime.h>

#include "conv2d_stem_kernel.h"

namespace mobilevit_fast::cuda {

// Launches the kernel for windows of few numbers; cudaErrorInvalidValue where they are more than kConv2dStemNumbers.
template <class T>
cudaError_t conv2d_stem(const Conv2dStemParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
