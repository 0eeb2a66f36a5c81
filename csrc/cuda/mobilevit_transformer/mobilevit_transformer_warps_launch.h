// The launch of the kernel by warps, compiled for each type by itself.
#pragma once

#include "cuda/launch.h"
#include "mobilevit_transformer.h"
#include "mobilevit_transformer_tiles.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t mobilevit_transformer_warps(const MobileViTTransformerParams& params, cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  with_transformer_warps<T>(params, [&](auto kernel) { result = launch<decltype(kernel)>(params, stream); });
  return result;
}

}  // namespace mobilevit_fast::cuda
