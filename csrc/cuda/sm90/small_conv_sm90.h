// Dense 3x3 convolutions of few images on compute capability 9.0: parameters and entry points.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/runtime.h"

namespace mobilevit_fast::cuda {

// Stride 1, a margin of one pixel, silu behind scale and bias. Images are dense in channels_last order.
struct SmallConvParams {
  const void *x, *x2;     // (batch, height, width, channels or channels2), the second one null where channels2 is 0
  void* y;                // (batch, height, width, outputs)
  const Bytes16* weight;  // (outputs / 8, 9 * (channels + channels2) / 32, 32) times 16 bytes: fragments of two steps
  const float *scale, *bias;  // (outputs)
  int batch, height, width, channels, channels2, outputs;
};

// Bytes of `weight`.
inline int64_t small_conv_weight_bytes(int64_t inputs, int64_t outputs) {
  return outputs / 8 * ((9 * inputs + 31) / 32) * 512;
}
// Whether there is a kernel for so many channels, those of both inputs together, and so many outputs.
bool has_small_conv(int inputs, int outputs);
// Blocks of the kernel for these parameters; 0 where there is none, since the channels are divided in another way.
int64_t small_conv_blocks(const SmallConvParams& params);
// Launches it over elements T; cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t small_conv(const SmallConvParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
