// The kernels of classifier_head_kernel.h, and their launch.
#include "classifier_head.h"
#include "classifier_head_kernel.h"
#include "cuda/launch.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t classifier_head(const ClassifierHeadParams& params, cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  with_classifier_head_kernel<T>(params.rows, [&](auto kernel) { result = launch<decltype(kernel)>(params, stream); });
  return result;
}

template cudaError_t classifier_head<Half>(const ClassifierHeadParams&, cudaStream_t);
template cudaError_t classifier_head<BFloat16>(const ClassifierHeadParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
