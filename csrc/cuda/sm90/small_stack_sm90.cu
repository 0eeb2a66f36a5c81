// Launches of the transformer stacks of few images.
#include "launch_sm90.h"
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

cudaError_t small_stack(SmallStackSize size, const SmallStackParams& params, cudaStream_t stream) {
  cudaError_t status = cudaErrorInvalidValue;
  const auto start = [&](auto shape) {
    using S = decltype(shape);
    constexpr few::Schedule kSchedule = few::schedule<S>();
    few::StackKernelParams all;
    static_cast<SmallStackParams&>(all) = params, all.schedule = kSchedule;
    status = launch_sm90<few::StackKernel<S>>(all, stream);
  };
  if (small_stack_blocks(size, params) > 0) few::with_stack_shape(size, start, few::StackShapes());
  return status;
}

}  // namespace mobilevit_fast::cuda
