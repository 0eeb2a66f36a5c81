// The transformer stack of a MobileViT block in one kernel of compute capability 9.0: entry points.
#pragma once

#include "cuda/mobilevit_transformer/mobilevit_transformer.h"

namespace mobilevit_fast::cuda {

// Bytes of the weights as mobilevit_fast/kernels/cuda/sm90/transformer_stack.py packs them; 0 where there is no kernel
// for these channels, features, hidden units, layers and heads.
int64_t transformer_stack_sm90_bytes(const MobileViTTransformerParams& params);

// Whether the kernel takes the call on the current device, and has work enough there: sets tiles and blocks.
bool choose_transformer_stack_sm90(MobileViTTransformerParams& params);

// Tokens that a sequence has room for; 0 where there is no kernel.
int transformer_stack_sm90_tokens(const MobileViTTransformerParams& params);

// Of sequences of as many tokens as a shape has, and of fewer.
template <class T>
cudaError_t transformer_stack_sm90(const MobileViTTransformerParams& params, cudaStream_t stream);
template <class T>
cudaError_t transformer_stack_masked_sm90(const MobileViTTransformerParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
