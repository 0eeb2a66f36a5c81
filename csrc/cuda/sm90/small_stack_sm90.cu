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

int64_t small_stack_blocks(SmallStackSize size, const SmallStackParams& params) {
  int64_t blocks = 0;
  const auto count = [&](auto shape) {
    using S = decltype(shape);
    const bool whole = params.height % 2 == 0 && params.width % 2 == 0;
    if (whole && int64_t{1} * params.height * params.width == 4 * S::kTokens) blocks = 4ll * params.batch * S::kCluster;
  };
  few::with_stack_shape(size, count, few::StackShapes());
  return blocks;
}

template cudaError_t small_stack<Half>(SmallStackSize, const SmallStackParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
