// The kernels of conv2d_bias_act_kernel.h, and their launch.
#include "conv2d_bias_act.h"
#include "conv2d_bias_act_kernel.h"
#include "cuda/launch.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t conv2d_bias_act(const Conv2dBiasActParams& params, cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  with_conv2d_kernel<T>(params.tile.variant, [&](auto kernel) { result = launch<decltype(kernel)>(params, stream); });
  return result;
}

template cudaError_t conv2d_bias_act<Half>(const Conv2dBiasActParams&, cudaStream_t);
template cudaError_t conv2d_bias_act<BFloat16>(const Conv2dBiasActParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
