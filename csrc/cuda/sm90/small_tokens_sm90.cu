// Launches of the transformer stacks of few images.
#include "launch_sm90.h"
#include "small_tokens_sm90_kernel.h"

namespace mobilevit_fast::cuda {
namespace {

// Calls visit(shape) with that of this size, if there is one.
template <class Visit, class... Shapes>
void with_shape(SmallStackSize size, const Visit& visit, few::List<Shapes...>) {
  const auto try_one = [&](auto shape) {
    using S = decltype(shape);
    if (size.channels == S::kChannels && size.features == S::kD && size.layers == S::kLayers) visit(shape);
  };
  (try_one(Shapes()), ...);
}

}  // namespace

int64_t small_tokens_weight_bytes(SmallStackSize size) {
  int64_t bytes = 0;
  with_shape(size, [&](auto shape) { bytes = decltype(shape)::kBytes; }, few::TokensShapes());
  return bytes;
}

int64_t small_tokens_blocks(SmallStackSize size, const SmallTokensParams& params) {
  int64_t blocks = 0;
  const auto count = [&](auto shape) {
    using S = decltype(shape);
    const bool whole = params.height % 2 == 0 && params.width % 2 == 0;
    if (whole && int64_t{1} * params.height * params.width == 4 * S::kTokens) blocks = 4ll * params.batch * S::kCluster;
  };
  with_shape(size, count, few::TokensShapes());
  return blocks;
}

int64_t small_tokens_exchanged_bytes(SmallStackSize size, const SmallTokensParams& params) {
  int64_t bytes = 0;
  const auto count = [&](auto shape) { bytes = few::TokensKernel<decltype(shape)>::exchanged_bytes(params); };
  with_shape(size, count, few::TokensShapes());
  return bytes;
}

cudaError_t small_tokens(SmallStackSize size, const SmallTokensParams& params, cudaStream_t stream) {
  cudaError_t status = cudaErrorInvalidValue;
  const auto start = [&](auto shape) { status = launch_sm90<few::TokensKernel<decltype(shape)>>(params, stream); };
  if (small_tokens_blocks(size, params) > 0) with_shape(size, start, few::TokensShapes());
  return status;
}

}  // namespace mobilevit_fast::cuda
