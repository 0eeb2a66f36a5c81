// The kernels of aspp_kernel.h, and their launches.
#include "aspp.h"
#include "aspp_kernel.h"
#include "cuda/launch.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t aspp_sums(const AsppPoolParams& params, cudaStream_t stream) {
  return launch<AsppSums<T>>(params, stream);
}
template <class T>
cudaError_t aspp_image_bias(const AsppPoolParams& params, cudaStream_t stream) {
  return launch<AsppImageBias<T>>(params, stream);
}

template cudaError_t aspp_sums<Half>(const AsppPoolParams&, cudaStream_t);
template cudaError_t aspp_sums<BFloat16>(const AsppPoolParams&, cudaStream_t);
template cudaError_t aspp_image_bias<Half>(const AsppPoolParams&, cudaStream_t);
template cudaError_t aspp_image_bias<BFloat16>(const AsppPoolParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
