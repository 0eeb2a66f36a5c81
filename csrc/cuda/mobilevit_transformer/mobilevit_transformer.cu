// The kernels of the transformer stack, whole and layer by layer, their choice and their launch.
#include "cuda/launch.h"
#include "mobilevit_transformer.h"
#include "mobilevit_transformer_tiles.h"

namespace mobilevit_fast::cuda {

template <class T>
bool choose_transformer(MobileViTTransformerParams& p) {
#if defined(MVF_EMULATED)
  // {} of what is chosen, {1} for the kernel by warps, {sequences, head_group} or {rows, head_group, keys}
  const std::vector<int>& asked = emulator::Log::get().tile;
  p.by_warps = asked.size() == 1;
  if (p.by_warps) return p.rows = 0, with_transformer_warps<T>(p, [](auto) {});
  if (!asked.empty()) {
    p.head_group = asked[1];
    if (asked.size() == 2) return p.rows = 0, p.sequences = asked[0], true;
    return p.rows = asked[0], p.keys = asked[2], true;
  }
#endif
  const Chip chip = current_chip();
  p.rows = 0;
  p.by_warps = choose_transformer_warps<T>(p, chip);
  return p.by_warps || choose_transformer_stack<T>(p, chip) || choose_transformer_layer<T>(p, chip);
}

template <class T>
cudaError_t mobilevit_transformer_stack(const MobileViTTransformerParams& params, cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  with_transformer_stack<T>(params, [&](auto kernel) { result = launch<decltype(kernel)>(params, stream); });
  return result;
}

template <class T>
cudaError_t mobilevit_transformer_layer(const MobileViTTransformerParams& params, cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  with_transformer_layer<T>(params, [&](auto kernel) { result = launch<decltype(kernel)>(params, stream); });
  return result;
}

template bool choose_transformer<Half>(MobileViTTransformerParams&);
template bool choose_transformer<BFloat16>(MobileViTTransformerParams&);
template cudaError_t mobilevit_transformer_stack<Half>(const MobileViTTransformerParams&, cudaStream_t);
template cudaError_t mobilevit_transformer_stack<BFloat16>(const MobileViTTransformerParams&, cudaStream_t);
template cudaError_t mobilevit_transformer_layer<Half>(const MobileViTTransformerParams&, cudaStream_t);
template cudaError_t mobilevit_transformer_layer<BFloat16>(const MobileViTTransformerParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
