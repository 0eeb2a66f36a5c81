// Transformer stacks of few images on compute capability 9.0, divided by tokens alone: parameters and entry points.
#pragma once

#include "small_stack_sm90.h"

namespace mobilevit_fast::cuda {

struct SmallTokensParams : SmallStackParams {
  Bytes16* exchanged;  // keys and values of every layer, small_tokens_exchanged_bytes
};

// Bytes of `weights`; 0 where there is no kernel of this size.
int64_t small_tokens_weight_bytes(SmallStackSize size);
// Blocks of the kernel for these parameters; 0 where there is none, since the image has more tokens, or fewer.
int64_t small_tokens_blocks(SmallStackSize size, const SmallStackParams& params);
int64_t small_tokens_exchanged_bytes(SmallStackSize size, const SmallStackParams& params);
// Launches it; cudaErrorInvalidValue where there is none.
cudaError_t small_tokens(SmallStackSize size, const SmallTokensParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
