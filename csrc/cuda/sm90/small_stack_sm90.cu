// Transformer stacks of few images: which there are, and their launches in float16.
#include "small_stack_sm90_kernel.h"

namespace mobilevit_fast::cuda {

int64_t small_stack_weight_bytes(SmallStackSize size) {
  int64_t bytes = 0;
  const auto count = [&](auto shape) {
    using S = decltype(shape);
    bytes = int64_t{S::kSlices} * few::schedule<S>().all_bytes;
  };
  few::with_stack_shape(size, count, few::StackShapes());
  return bytes;
}

int small_stack_tokens(SmallStackSize size) {
  int tokens = 0;
  few::with_stack_shape(size, [&](auto shape) { tokens = decltype(shape)::kTokens; }, few::StackShapes());
  return tokens;
}

int64_t small_stack_blocks(SmallStackSize size, int batch) {
  int64_t blocks = 0;
  few::with_stack_shape(
      size, [&](auto shape) { blocks = 4ll * batch * decltype(shape)::kCluster; }, few::StackShapes());
  return blocks;
}

template <>
cudaError_t small_stack<Half>(SmallStackSize size, const SmallStackParams& params, cudaStream_t stream) {
  return few::launch_small_stack<Half, false>(size, params, stream);
}

}  // namespace mobilevit_fast::cuda
