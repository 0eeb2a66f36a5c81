// The kernels of depthwise_conv2d_kernel.h for every window, and their launch.
#include "cuda/launch.h"
#include "depthwise_conv2d.h"
#include "depthwise_conv2d_tiles.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t depthwise_conv2d(const DepthwiseConv2dParams& params, int kernel, int stride, cudaStream_t stream) {
  const int tile = choose_tile<T>(params, kernel, stride, current_chip());
  cudaError_t result = cudaErrorInvalidValue;
  with_depthwise_kernel<T>(kernel, stride, tile, [&](auto one) {
    using Kernel = decltype(one);
    if (Kernel::block_count(params) < int64_t{1} << 31) result = launch<Kernel>(params, stream);
  });
  return result;
}

template cudaError_t depthwise_conv2d<Half>(const DepthwiseConv2dParams&, int, int, cudaStream_t);
template cudaError_t depthwise_conv2d<BFloat16>(const DepthwiseConv2dParams&, int, int, cudaStream_t);

}  // namespace mobilevit_fast::cuda
