// Launches of the transformer stacks of few images for sequences that leave places empty, in bfloat16.
#include "small_stack_sm90_kernel.h"

namespace mobilevit_fast::cuda {

template <>
cudaError_t small_stack_masked<BFloat16>(SmallStackSize size, const SmallStackParams& params, cudaStream_t stream) {
  return few::launch_small_stack<BFloat16, true>(size, params, stream);
}

}  // namespace mobilevit_fast::cuda
