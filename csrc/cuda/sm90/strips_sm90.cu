// Launches of the kernels of strips_kernel.h on compute capability 9.0.
#include "cuda/inverted_residual/strips_launch.h"
#include "launch_sm90.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t strips_sm90(int shape, const StripsParams& params, cudaStream_t stream) {
  return with_strips<T, false>(
      shape, [&](auto kernel) { return launch_sm90<typename decltype(kernel)::Type>(params, stream); });
}
template cudaError_t strips_sm90<Half>(int, const StripsParams&, cudaStream_t);
template cudaError_t strips_sm90<BFloat16>(int, const StripsParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
