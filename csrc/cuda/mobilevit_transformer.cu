// The kernels of the transformer stack, whole and layer by layer, and their launch.
#include "launch.h"
#include "mobilevit_transformer.h"

namespace mobilevit_fast::cuda {

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

template cudaError_t mobilevit_transformer_stack<Half>(const MobileViTTransformerParams&, cudaStream_t);
template cudaError_t mobilevit_transformer_stack<BFloat16>(const MobileViTTransformerParams&, cudaStream_t);
template cudaError_t mobilevit_transformer_layer<Half>(const MobileViTTransformerParams&, cudaStream_t);
template cudaError_t mobilevit_transformer_layer<BFloat16>(const MobileViTTransformerParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
