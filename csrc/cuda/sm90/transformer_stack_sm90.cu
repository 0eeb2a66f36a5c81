// The transformer stack on compute capability 9.0: its choice, and its launches in float16.
#include <climits>

#include "transformer_stack_sm90.h"
#include "transformer_stack_sm90_kernel.h"

namespace mobilevit_fast::cuda {

int64_t transformer_stack_sm90_bytes(const MobileViTTransformerParams& p) {
  int64_t bytes = 0;
  with_stack_shape(p, [&](auto shape) { bytes = decltype(shape)::Type::kStreamBytes; });
  return bytes;
}

int transformer_stack_sm90_tokens(const MobileViTTransformerParams& p) {
  int tokens = 0;
  with_stack_shape(p, [&](auto shape) { tokens = decltype(shape)::Type::kTokens; });
  return tokens;
}

bool choose_transformer_stack_sm90(MobileViTTransformerParams& p) {
  const Chip chip = current_chip();
  const bool silu = p.mlp_activation == Activation::silu && p.out_activation == Activation::silu;
  if (chip.capability != 90 || !silu || p.patch_h != 2 || p.patch_w != 2) return false;
  bool found = false;
  with_stack_shape(p, [&](auto shape) {
    using S = typename decltype(shape)::Type;
    found = p.tokens >= S::kLeastTokens && p.tokens <= S::kTokens && chip.shared_memory() >= S::kShared;
  });
  const int64_t rows = static_cast<int64_t>(p.all_sequences) * transformer_stack_sm90_tokens(p);
  if (!found || rows > INT_MAX - kTileRows) return false;
  p.tiles = static_cast<int>((rows + kTileRows - 1) / kTileRows);
  const int most = chip.processors / 2 * 2;  // an even number: clusters of two
  p.blocks = p.tiles < most ? p.tiles : most;
  p.inverse_columns = 1.0f / static_cast<float>(p.width / 2);
#if defined(MVF_EMULATED)
  const std::vector<int>& asked = emulator::Log::get().tile;  // {blocks}, or a tile of another kernel
  if (!asked.empty()) return p.blocks = asked[0], asked.size() == 1;
#endif
  return 2 * p.tiles >= chip.processors;  // with fewer, today's tiles are smaller and take less time
}

template <>
cudaError_t transformer_stack_sm90<Half>(const MobileViTTransformerParams& params, cudaStream_t stream) {
  return launch_stack_sm90<Half, false>(params, stream);
}

}  // namespace mobilevit_fast::cuda
