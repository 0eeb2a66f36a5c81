// The transformer stack of a MobileViT block on a GPU: entry point.
#pragma once

#include <cuda_runtime.h>

#include "mobilevit_transformer_tiles.h"

namespace mobilevit_fast::cuda {

// Launch the kernel for the whole stack, or the one for a layer; cudaErrorInvalidValue where there is none that holds
// it (mobilevit_transformer_tiles.h).
template <class T>
cudaError_t mobilevit_transformer_stack(const MobileViTTransformerParams& params, cudaStream_t stream);
template <class T>
cudaError_t mobilevit_transformer_layer(const MobileViTTransformerParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
