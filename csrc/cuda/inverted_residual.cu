// The kernels of inverted_residual_kernel.h for every tile, and their launch.
#include "inverted_residual.h"
#include "inverted_residual_tiles.h"
#include "launch.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t inverted_residual(const InvertedResidualParams& params, bool expands, int stride, int size,
                              cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  const auto start = [&](auto kernel) { result = launch<decltype(kernel)>(params, stream); };
  if (expands) {
    with_kernel<T, true>(params, stride, size, start);
  } else {
    with_kernel<T, false>(params, stride, size, start);
  }
  return result;
}

template cudaError_t inverted_residual<Half>(const InvertedResidualParams&, bool, int, int, cudaStream_t);
template cudaError_t inverted_residual<BFloat16>(const InvertedResidualParams&, bool, int, int, cudaStream_t);

}  // namespace mobilevit_fast::cuda
