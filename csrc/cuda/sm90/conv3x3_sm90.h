// Dense 3x3 convolution of many pixels on GPUs of compute capability 9.0: what it takes, and its entry point.
#pragma once

#include "conv2d_bias_act_tiles.h"
#include "mobilevit_fast/activation.h"
#include "mobilevit_fast/device.h"
#include "runtime.h"

namespace mobilevit_fast::cuda {

// y = silu(scale * conv(x, x2) + bias) with padding 1. Images are dense channels_last on multiples of 16 bytes. Weights
// are packed as they lie in shared memory (mobilevit_fast/kernels/cuda/sm90/conv3x3.py).
struct Conv3x3Sm90Params {
  const void *x, *x2;  // (images, height, width, channels); x2 is x where there is one input
  void* y;             // (images, height, width, channels)
  const Bytes16* weight;
  const float *scale, *bias;
  int images, height, width;
};

// A kernel, for `inputs` tensors of so many channels and as many outputs. A tile is `images` x `down` x `across`
// squares of 8x8 pixels. Its input comes in `stages` of `chunk` channels, the weights in pieces: `taps` taps of a
// chunk.
//
// ring > 0: two warpgroups share a tile, and the pieces pass through a ring. ring == 0: all pieces stay in shared
// memory, each warpgroup has tiles of its own, and the two multiply in turns, so that one's epilogue is hidden behind
// the other's products.
struct Conv3x3Sm90Variant {
  int channels, inputs, images, down, across, chunk, taps, stages, ring, registers;

  constexpr bool takes_turns() const { return ring == 0; }
  constexpr bool is_of_small_images() const { return images > 1; }
};

constexpr Conv3x3Sm90Variant kConv3x3Sm90Variants[] = {
    {48, 1, 1, 2, 1, 16, 9, 12, 0, 168}, {48, 2, 1, 2, 1, 16, 9, 12, 0, 168}, {64, 1, 1, 2, 1, 32, 9, 6, 0, 168},
    {64, 2, 1, 2, 1, 32, 9, 6, 0, 168},  {80, 1, 1, 2, 1, 16, 9, 10, 0, 184}, {96, 1, 1, 2, 1, 32, 3, 5, 0, 168},
    {80, 2, 1, 2, 2, 16, 3, 6, 16, 168}, {96, 2, 1, 2, 2, 32, 3, 3, 8, 168},  {128, 1, 1, 2, 2, 32, 3, 3, 6, 168},
    {128, 2, 1, 2, 2, 32, 3, 3, 6, 168}, {80, 1, 2, 1, 1, 16, 9, 8, 5, 168},  {80, 2, 2, 1, 1, 16, 9, 8, 5, 168},
    {96, 1, 2, 1, 1, 32, 3, 4, 8, 168},  {96, 2, 2, 1, 1, 32, 3, 4, 8, 168},  {160, 1, 2, 1, 1, 32, 3, 4, 5, 168},
    {160, 2, 2, 1, 1, 32, 3, 4, 5, 168},
};
constexpr int kConv3x3Sm90VariantCount = 16;

inline int64_t conv3x3_sm90_tiles(const Conv3x3Sm90Variant& v, int64_t images, int64_t height, int64_t width) {
  return (images + v.images - 1) / v.images * ((height + 8 * v.down - 1) / (8 * v.down)) *
         ((width + 8 * v.across - 1) / (8 * v.across));
}

// Whether weights of a convolution are packed for these kernels as well.
inline bool conv3x3_sm90_has(int64_t inputs, int64_t outputs, int64_t kernel_h, int64_t kernel_w) {
  if (kernel_h != 3 || kernel_w != 3) return false;
  for (const Conv3x3Sm90Variant& v : kConv3x3Sm90Variants) {
    if (v.channels == outputs && v.channels * v.inputs == inputs) return true;
  }
  return false;
}

// The variant for a call, -1 where another kernel should run it: one that does something else, or one with fewer tiles
// than keep about three quarters of the processors busy.
inline int choose_conv3x3_sm90(const Conv2dShape& s, Activation activation, int processors) {
  if (activation != Activation::silu || !conv3x3_sm90_has(s.channels + s.channels2, s.outputs, s.kernel_h, s.kernel_w))
    return -1;
  const auto both = [](int down, int across, int value) { return down == value && across == value; };
  if (!both(s.stride_h, s.stride_w, 1) || !both(s.padding_h, s.padding_w, 1) || !both(s.dilation_h, s.dilation_w, 1))
    return -1;
  const int inputs = s.channels2 > 0 ? 2 : 1;
  if (s.channels != s.outputs || (inputs == 2 && s.channels2 != s.channels)) return -1;
  int best = -1;
  for (int i = 0; i < kConv3x3Sm90VariantCount; ++i) {
    const Conv3x3Sm90Variant& v = kConv3x3Sm90Variants[i];
    if (v.channels != s.channels || v.inputs != inputs) continue;
    if (best < 0 || v.is_of_small_images() == (s.height <= 8 && s.width <= 8)) best = i;
  }
  if (best < 0) return -1;
  const int64_t tiles = conv3x3_sm90_tiles(kConv3x3Sm90Variants[best], s.batch, s.height, s.width);
  return 4 * tiles >= int64_t{3} * processors ? best : -1;
}

// Launches a variant; cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t conv3x3_sm90(int variant, const Conv3x3Sm90Params& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
