// The kernels of depthwise_conv2d_kernel.h, and their launch.
#include "depthwise_conv2d.h"
#include "launch.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t depthwise_conv2d(const DepthwiseConv2dParams& params, int kernel, int stride, int tile,
                             cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  with_depthwise_kernel<T>(kernel, stride, tile, [&](auto one) { result = launch<decltype(one)>(params, stream); });
  return result;
}

template cudaError_t depthwise_conv2d<Half>(const DepthwiseConv2dParams&, int, int, int, cudaStream_t);
template cudaError_t depthwise_conv2d<BFloat16>(const DepthwiseConv2dParams&, int, int, int, cudaStream_t);

}  // namespace mobilevit_fast::cuda
