// The launch of the kernels of inverted_residual_kernel.h. It is compiled for each type by itself, since they are many.
#pragma once

#include "cuda/launch.h"
#include "inverted_residual.h"
#include "inverted_residual_tiles.h"

namespace mobilevit_fast::cuda {

template <class T>
size_t inverted_residual_bytes(const InvertedResidualParams& params, bool expands, int stride) {
  size_t bytes = 0;
  with_kernel<T>(params, expands, stride, kTileSizes - 1, [&](auto kernel) {
    using Kernel = typename decltype(kernel)::Type;
    bytes = Kernel::shared_bytes(params);
  });
  return bytes;
}

template <class T>
cudaError_t inverted_residual(const InvertedResidualParams& params, bool expands, int stride, cudaStream_t stream) {
  const int size = choose_size<T>(params, expands, stride, current_chip());
  cudaError_t result = cudaErrorInvalidValue;
  with_kernel<T>(params, expands, stride, size, [&](auto kernel) {
    using Kernel = typename decltype(kernel)::Type;
    if (Kernel::block_count(params) < int64_t{1} << 31) result = launch<Kernel>(params, stream);
  });
  return result;
}

}  // namespace mobilevit_fast::cuda
