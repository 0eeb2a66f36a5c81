// Transformer stacks of few images on compute capability 9.0: parameters and entry points.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/runtime.h"

namespace mobilevit_fast::cuda {

// What tells a MobileViT's stacks apart. Patches are 2x2 pixels, hidden units of a layer twice the features, heads
// four; as many outputs as channels.
struct SmallStackSize {
  int channels, features, layers;
};

// Silu is the activation of hidden units and outputs. Images are dense in channels_last order.
struct SmallStackParams {
  const void* x;           // (batch, height, width, channels)
  void* y;                 // the same
  const Bytes16* weights;  // of a slice of the columns after another
  int batch, height, width;
  float score_scale, eps;  // log2(e) / sqrt(head_dim)
  int tokens;              // of a sequence: a quarter of the pixels
};

// Bytes of `weights`; 0 where there is no kernel of this size.
int64_t small_stack_weight_bytes(SmallStackSize size);
// Tokens that a sequence has room for; 0 where there is no kernel.
int small_stack_tokens(SmallStackSize size);
// Blocks of the kernel for so many images; 0 where there is none.
int64_t small_stack_blocks(SmallStackSize size, int batch);

// Launch it for sequences of as many tokens as there is room for, and for fewer.
template <class T>
cudaError_t small_stack(SmallStackSize size, const SmallStackParams& params, cudaStream_t stream);
template <class T>
cudaError_t small_stack_masked(SmallStackSize size, const SmallStackParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
