// The launch of the kernels of inverted_residual_kernel.h. It is compiled for each type by itself, since they are many.
#pragma once

#include "inverted_residual.h"
#include "inverted_residual_tiles.h"
#include "launch.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t inverted_residual(const InvertedResidualParams& params, bool expands, int stride, int size,
                              cudaStream_t stream) {
  if (stride < 1 || stride > 2 || size >= kTileSizes) return cudaErrorInvalidValue;
  if (size == kChosenByChip) size = choose_size<T>(params, expands, stride, current_chip());
  cudaError_t result = cudaErrorInvalidValue;
  with_kernel<T>(params, expands, stride, size, [&](auto kernel) {
    using Kernel = decltype(kernel);
    if (Kernel::block_count(params) < int64_t{1} << 31) result = launch<Kernel>(params, stream);
  });
  return result;
}

}  // namespace mobilevit_fast::cuda
