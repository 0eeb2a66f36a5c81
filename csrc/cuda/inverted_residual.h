// Inverted residual and depthwise separable convolution on a GPU: entry point.
#pragma once

#include <cuda_runtime.h>

#include "inverted_residual_kernel.h"

namespace mobilevit_fast::cuda {

// Launches the kernel with tiles of this size (inverted_residual_tiles.h); cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t inverted_residual(const InvertedResidualParams& params, bool expands, int stride, int size,
                              cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
