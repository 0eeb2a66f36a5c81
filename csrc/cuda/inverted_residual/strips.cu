// Launches of the kernels of strips_kernel.h on other chips than those of compute capability 9.0: with as many warps as
// shared memory has room for.
#include "strips_launch.h"
#if defined(MVF_EMULATED)
#include "emulated_sm90.h"
#endif

namespace mobilevit_fast::cuda {
namespace {

template <class Kernel>
cudaError_t launch_strips(const StripsParams& params, cudaStream_t stream) {
#if defined(MVF_EMULATED)
  (void)stream;
  return emulated_launch_sm90<Kernel>(params, Kernel::threads(params));  // which has shared memory by addresses
#else
  return launch<Kernel>(params, stream, Kernel::threads(params));
#endif
}

}  // namespace

template <class T>
cudaError_t strips(int shape, const StripsParams& params, cudaStream_t stream) {
  return with_strips<T, true>(
      shape, [&](auto kernel) { return launch_strips<typename decltype(kernel)::Type>(params, stream); });
}
template cudaError_t strips<Half>(int, const StripsParams&, cudaStream_t);
template cudaError_t strips<BFloat16>(int, const StripsParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
