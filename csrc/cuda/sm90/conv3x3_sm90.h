// Dense 3x3 convolution on GPUs of compute capability 9.0: what it takes, and its entry point.
#pragma once

#include "common/activation.h"
#include "cuda/conv2d_bias_act/conv2d_bias_act_tiles.h"
#include "cuda/device.h"
#include "cuda/runtime.h"

namespace mobilevit_fast::cuda {

// y = silu(scale * conv(x, x2) + bias) with padding 1. Images are dense channels_last on multiples of 16 bytes. Weights
// are packed as they lie in shared memory (mobilevit_fast/kernels/cuda/sm90/conv3x3.py).
struct Conv3x3Sm90Params {
  const void *x, *x2;     // (images, height, width, channels); x2 is x where there is one input
  void* y;                // (images, height, width, channels)
  const Bytes16* weight;  // conv3x3_sm90_weight_bytes
  const float *scale, *bias;
  int images, height, width;
};

// A kernel, for `inputs` tensors of so many channels and as many outputs. A tile is `images` x `down` x `across`
// squares of 8x8 pixels and `outputs` of the outputs. Its input comes in `stages` of `chunk` channels, the weights in
// pieces: `taps` taps of a chunk.
//
// ring > 0: two warpgroups share a tile, and the pieces pass through a ring. ring == 0: all pieces stay in shared
// memory, each warpgroup has tiles of its own, and the two multiply in turns, so that one's epilogue is hidden behind
// the other's products.
struct Conv3x3Sm90Variant {
  int channels, inputs, outputs, images, down, across, chunk, taps, stages, ring;

  constexpr bool takes_turns() const { return ring == 0; }
  constexpr int squares() const { return images * down * across; }
  constexpr int parts() const { return channels / outputs; }  // of the outputs
  constexpr int64_t weight_bytes() const { return int64_t{9} * channels * inputs * channels * 2; }
};

// The first three groups are for many images, the last two for few of them: more tiles, each sooner done.
constexpr Conv3x3Sm90Variant kConv3x3Sm90Variants[] = {
    // All weights resident.
    {48, 1, 48, 1, 2, 1, 16, 9, 12, 0},
    {48, 2, 48, 1, 2, 1, 16, 9, 12, 0},
    {64, 1, 64, 1, 2, 1, 32, 9, 6, 0},
    {64, 2, 64, 1, 2, 1, 32, 9, 6, 0},
    {80, 1, 80, 1, 2, 1, 16, 9, 10, 0},
    {96, 1, 96, 1, 2, 1, 32, 3, 5, 0},
    // 16x16 pixels.
    {80, 2, 80, 1, 2, 2, 16, 3, 6, 16},
    {96, 2, 96, 1, 2, 2, 32, 3, 3, 8},
    {128, 1, 128, 1, 2, 2, 32, 3, 3, 6},
    {128, 2, 128, 1, 2, 2, 32, 3, 3, 6},
    // Two images of 8x8 pixels.
    {80, 1, 80, 2, 1, 1, 16, 9, 8, 5},
    {80, 2, 80, 2, 1, 1, 16, 9, 8, 5},
    {96, 1, 96, 2, 1, 1, 32, 3, 4, 8},
    {96, 2, 96, 2, 1, 1, 32, 3, 4, 8},
    {160, 1, 160, 2, 1, 1, 32, 3, 4, 5},
    {160, 2, 160, 2, 1, 1, 32, 3, 4, 5},
    // 16x8 pixels.
    {80, 2, 80, 1, 2, 1, 16, 9, 6, 6},
    {128, 1, 128, 1, 2, 1, 32, 3, 4, 7},
    {128, 2, 128, 1, 2, 1, 32, 3, 4, 7},
    // 32 of the outputs, which lets most weights be there before the images are.
    {96, 1, 32, 1, 2, 1, 32, 9, 4, 9},
    {96, 2, 32, 1, 2, 1, 32, 9, 4, 9},
    {96, 1, 32, 2, 1, 1, 32, 9, 4, 9},
    {96, 2, 32, 2, 1, 1, 32, 9, 4, 9},
    {128, 1, 32, 1, 2, 1, 32, 9, 4, 9},
    {128, 2, 32, 1, 2, 1, 32, 9, 4, 9},
    {160, 1, 32, 2, 1, 1, 32, 9, 4, 9},
    {160, 2, 32, 2, 1, 1, 32, 9, 4, 9},
};
constexpr int kConv3x3Sm90VariantCount = 27;
constexpr int kConv3x3Sm90Part = 32;  // outputs of a variant that has not all

inline int64_t conv3x3_sm90_tiles(const Conv3x3Sm90Variant& v, int64_t images, int64_t height, int64_t width) {
  return (images + v.images - 1) / v.images * ((height + 8 * v.down - 1) / (8 * v.down)) *
         ((width + 8 * v.across - 1) / (8 * v.across)) * v.parts();
}

// Bytes of a convolution's packed weights for these kernels, 0 where they have no such convolution: in the order of
// those variants that have all outputs, and, where some have not, in theirs.
inline int64_t conv3x3_sm90_weight_bytes(int64_t inputs, int64_t outputs, int64_t kernel_h, int64_t kernel_w) {
  int64_t bytes = 0;
  if (kernel_h != 3 || kernel_w != 3) return 0;
  for (const Conv3x3Sm90Variant& v : kConv3x3Sm90Variants) {
    if (v.channels != outputs || v.channels * v.inputs != inputs) continue;
    const int64_t needed = v.parts() > 1 ? 2 * v.weight_bytes() : v.weight_bytes();
    if (needed > bytes) bytes = needed;
  }
  return bytes;
}

// Cycles that a launch takes, roughly: rounds of tiles, whose products read 16 + N / 4 cycles from shared memory and
// multiply for N / 2, and what a tile waits for.
inline int64_t conv3x3_sm90_clocks(const Conv3x3Sm90Variant& v, const Conv2dShape& s, int processors) {
  constexpr int kStart = 3000, kWait = 2500, kTurn = 350, kLast = 2000;
  const int64_t tiles = conv3x3_sm90_tiles(v, s.batch, s.height, s.width);
  const int64_t products = 9 * v.channels * v.inputs / 16 * v.squares();
  const int each = v.outputs >= 64 ? v.outputs / 2 : 16 + v.outputs / 4;
  const int64_t rounds = (tiles + processors - 1) / processors;
  return kStart + (v.takes_turns() ? rounds * (products * each + kTurn) + kLast : rounds * (products * each + kWait));
}

// The variant for a call, -1 where another kernel should run it: one that does something else, or one whose pixels fill
// less than a quarter of the squares.
inline int choose_conv3x3_sm90(const Conv2dShape& s, Activation activation, int processors) {
  const auto both = [](int down, int across, int value) { return down == value && across == value; };
  const int inputs = s.channels2 > 0 ? 2 : 1;
  if (activation != Activation::silu || !both(s.kernel_h, s.kernel_w, 3) || !both(s.stride_h, s.stride_w, 1) ||
      !both(s.padding_h, s.padding_w, 1) || !both(s.dilation_h, s.dilation_w, 1) || s.channels != s.outputs ||
      (inputs == 2 && s.channels2 != s.channels)) {
    return -1;
  }
  const int64_t squares = int64_t{(s.height + 7) / 8} * ((s.width + 7) / 8);
  if (int64_t{4} * s.height * s.width < 64 * squares) return -1;
  int best = -1;
  int64_t least = 0;
  for (int i = 0; i < kConv3x3Sm90VariantCount; ++i) {
    const Conv3x3Sm90Variant& v = kConv3x3Sm90Variants[i];
    if (v.channels != s.channels || v.inputs != inputs) continue;
    const int64_t clocks = conv3x3_sm90_clocks(v, s, processors);
    if (best < 0 || clocks < least) best = i, least = clocks;
  }
  return best;
}

// Launches a variant; cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t conv3x3_sm90(int variant, const Conv3x3Sm90Params& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
