// The kernels of stem_sm90_kernel.h, and their launch.
#include "launch_sm90.h"
#include "stem_sm90_kernel.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t stem_sm90(const StemSm90Params& params, cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  with_stem_sm90_kernel<T>(params, current_chip().processors,
                           [&](auto kernel) { result = launch_sm90<decltype(kernel)>(params, stream); });
  return result;
}

template cudaError_t stem_sm90<Half>(const StemSm90Params&, cudaStream_t);
template cudaError_t stem_sm90<BFloat16>(const StemSm90Params&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
