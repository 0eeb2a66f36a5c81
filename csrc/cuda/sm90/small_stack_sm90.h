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
};

// Bytes of `weights`; 0 where there is no kernel of this size.
int64_t small_stack_weight_bytes(SmallStackSize size);
// Blocks of the kernel for these parameters; 0 where there is none, since the image has more tokens, or fewer.
int64_t small_stack_blocks(SmallStackSize size, const SmallStackParams& params);
// Launches it over elements T; cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t small_stack(SmallStackSize size, const SmallStackParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
