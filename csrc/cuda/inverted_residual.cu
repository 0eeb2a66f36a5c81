// The kernels of inverted_residual_kernel.h for every tile, and their launch.
#include "inverted_residual.h"
#include "inverted_residual_tiles.h"
#include "launch.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t inverted_residual(const InvertedResidualParams& params, int stride, int size, cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  with_kernel<T>(params, stride, size, [&](auto kernel) { result = launch<decltype(kernel)>(params, stream); });
  return result;
}

template cudaError_t inverted_residual<Half>(const InvertedResidualParams&, int, int, cudaStream_t);
template cudaError_t inverted_residual<BFloat16>(const InvertedResidualParams&, int, int, cudaStream_t);

}  // namespace mobilevit_fast::cuda
