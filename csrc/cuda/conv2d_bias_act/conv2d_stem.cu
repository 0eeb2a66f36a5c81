// The kernels of conv2d_stem_kernel.h, and their launch.
#include "conv2d_stem.h"
#include "conv2d_stem_kernel.h"
#include "cuda/launch.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t conv2d_stem(const Conv2dStemParams& params, cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  const Conv2dShape& s = params.shape;
  with_conv2d_stem_kernel<T>(s.kernel_h * s.kernel_w * s.channels, params.bytes,
                             [&](auto kernel) { result = launch<decltype(kernel)>(params, stream); });
  return result;
}

template cudaError_t conv2d_stem<Half>(const Conv2dStemParams&, cudaStream_t);
template cudaError_t conv2d_stem<BFloat16>(const Conv2dStemParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
