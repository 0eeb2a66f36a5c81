// How a dense convolution is cut into tiles: which there are, and which one a call takes. Plain arithmetic, no CUDA.
#pragma once

#include <algorithm>
#include <cstdint>

namespace mobilevit_fast::cuda {

struct Conv2dShape {
  int batch, height, width, channels, channels2, outputs, out_h, out_w;
  int kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
};

// A kernel. A warp accumulates `rows` tiles of 16 pixels by `columns` tiles of 8 output channels; a block has warps_m
// by warps_n such warps, and warps_k times as many, which share the MACs of every accumulator. Input channels
// come 16 * units at a time.
struct Conv2dVariant {
  int rows, columns, warps_m, warps_n, warps_k, units;

  constexpr int pixels() const { return 16 * rows * warps_m; }
  constexpr int outputs() const { return 8 * columns * warps_n; }
  constexpr int warps() const { return warps_m * warps_n * warps_k; }
};

// The first seven are for many pixels, of four warps but for those two that have all outputs of small images; the next
// ones for fewer, of which the last two wait for weights above all, so they take many at once.
constexpr Conv2dVariant kConv2dVariants[] = {
    {4, 8, 2, 2, 1, 2},  {4, 6, 2, 2, 1, 2},  {4, 4, 2, 2, 1, 2}, {2, 10, 4, 1, 1, 2},
    {2, 6, 4, 1, 1, 2},  {2, 10, 4, 2, 1, 2}, {2, 6, 4, 2, 1, 2}, {2, 8, 2, 1, 2, 2},
    {2, 10, 2, 1, 2, 2}, {2, 6, 2, 1, 2, 2},  {2, 4, 1, 1, 4, 4}, {1, 2, 1, 1, 4, 4},
};
constexpr int kConv2dVariantCount = 12;
constexpr int kConv2dStages = 3;  // of weights, in a ring

// What a block computes: pixels of `images` images, `height` by `width` of each, their product the variant's pixels.
// The input pixels that they see, extent_h by extent_w of each image, are in shared memory together and serve all taps;
// or, where the window is wide, it `gathers`: each tap's pixels come by themselves. `group` taps are one step.
struct Conv2dTile {
  int variant, images, height, width, extent_h, extent_w, group;
  bool gathers;
};

inline int conv2d_ceil_div(int a, int b) { return (a + b - 1) / b; }

// Steps of 16 input channels; each input by itself is rounded up.
inline int conv2d_units(const Conv2dShape& s) {
  return conv2d_ceil_div(s.channels, 16) + conv2d_ceil_div(s.channels2, 16);
}

inline int64_t conv2d_blocks(const Conv2dShape& s, const Conv2dTile& t) {
  const int64_t tiles = static_cast<int64_t>(conv2d_ceil_div(s.batch, t.images)) * conv2d_ceil_div(s.out_h, t.height) *
                        conv2d_ceil_div(s.out_w, t.width);
  return tiles * conv2d_ceil_div(s.outputs, kConv2dVariants[t.variant].outputs());
}

// Steps that share an input; how many inputs are in shared memory.
inline int conv2d_span(const Conv2dShape& s, const Conv2dTile& t) {
  return t.gathers ? 1 : conv2d_ceil_div(s.kernel_h * s.kernel_w, t.group);
}
inline int conv2d_buffers(const Conv2dShape& s, const Conv2dTile& t) { return conv2d_span(s, t) == 1 ? 3 : 2; }

// Bytes of shared memory: inputs and weights, of which accumulators take the place in the end; where the pixels lie.
inline int64_t conv2d_work_bytes(const Conv2dShape& s, const Conv2dTile& t) {
  const Conv2dVariant& v = kConv2dVariants[t.variant];
  const int64_t pixels = static_cast<int64_t>(t.images) * t.extent_h * t.extent_w;
  const int64_t input = conv2d_buffers(s, t) * pixels * v.units * 32;
  const int64_t weights = static_cast<int64_t>(kConv2dStages) * t.group * v.units * v.outputs() * 32;
  return std::max(input + weights, static_cast<int64_t>(v.warps_k - 1) * v.pixels() * v.outputs() * 4);
}
inline int64_t conv2d_place_bytes(const Conv2dTile& t) {
  return static_cast<int64_t>(t.images) * t.extent_h * t.extent_w * 8;
}

// Bytes of shared memory that a block should take, and that it takes at most where it cannot do with less; of weights
// in a step. Two blocks of four warps, or one of eight, fit a processor of 100 KiB, each with 1 KiB of the system's.
inline int64_t conv2d_shared_budget(const Conv2dVariant& v) { return (v.warps() > 4 ? 98 : 49) << 10; }
inline int64_t conv2d_shared_most(const Conv2dVariant& v) { return (v.warps() > 4 ? 98 : 60) << 10; }
inline int conv2d_stage_bytes(const Conv2dVariant& v) { return (v.warps() > 4 ? 20 : 10) << 10; }
constexpr int64_t kConv2dStemBudget = 49 << 10;  // of images of few channels, whose blocks have four warps

// The tile of a variant and a shape, with what follows from them.
inline Conv2dTile conv2d_tile(const Conv2dShape& s, int variant, int images, int height, int width) {
  const Conv2dVariant& v = kConv2dVariants[variant];
  const int taps = s.kernel_h * s.kernel_w;
  Conv2dTile t{variant, images, height, width, 0, 0, 1, false};
  t.extent_h = (height - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
  t.extent_w = (width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
  const int64_t halo = static_cast<int64_t>(images) * t.extent_h * t.extent_w;
  if (taps == 1 || 2 * halo >= static_cast<int64_t>(taps) * v.pixels() ||
      conv2d_work_bytes(s, t) + conv2d_place_bytes(t) > conv2d_shared_most(v)) {
    t.extent_h = height, t.extent_w = width, t.gathers = true;
    return t;
  }
  t.group = std::clamp(conv2d_stage_bytes(v) / (v.units * v.outputs() * 32), 1, taps);
  while (t.group > 1 && conv2d_work_bytes(s, t) + conv2d_place_bytes(t) > conv2d_shared_budget(v)) --t.group;
  return t;
}

// Cycles that a launch takes, roughly: rounds of blocks, each bound by MACs, shared memory or the second-level
// cache, of which the others hinder it a little; and what one block waits for.
inline double conv2d_clocks(const Conv2dShape& s, const Conv2dTile& t, int processors) {
  const Conv2dVariant& v = kConv2dVariants[t.variant];
  const int taps = s.kernel_h * s.kernel_w, units = conv2d_units(s), warps = v.warps_m * v.warps_n;
  constexpr double kBytes = 32, kWait = 150, kHindered = 0.25;  // bytes of the cache a cycle; cycles of a step
  const double products = 2.0 * v.rows * v.columns * warps * taps * units;
  const double wavefronts = (4.0 * v.rows + 2.0 * v.columns) * warps * taps * units;
  const double halo = static_cast<double>(t.images) * t.extent_h * t.extent_w * (t.gathers ? taps : 1);
  const double cache = (halo + static_cast<double>(v.outputs()) * taps) * units * 32 / kBytes;
  const double steps = static_cast<double>(conv2d_ceil_div(units, v.units)) * (t.gathers ? taps : conv2d_span(s, t));
  const int64_t blocks = conv2d_blocks(s, t);
  const double share = static_cast<double>(blocks) / processors;  // of two tiles with as many rounds, the one with less
  const double rounds = static_cast<double>((blocks + processors - 1) / processors) + 0.1 * share;
  const double hindered = kHindered * (products + wavefronts + cache);
  return rounds * (std::max({products, wavefronts, cache}) + hindered) + steps * kWait;
}

// The tile of a variant that takes the fewest cycles: wide or high, or of several small images.
inline Conv2dTile conv2d_best_tile(const Conv2dShape& s, int variant, int processors) {
  const Conv2dVariant& v = kConv2dVariants[variant];
  const int pixels = v.pixels();
  Conv2dTile best{};
  double least = -1;
  for (int width = 4; width <= std::min(32, pixels); width *= 2) {
    for (int height = 1; height * width <= pixels; height *= 2) {
      const Conv2dTile tile = conv2d_tile(s, variant, pixels / (height * width), height, width);
      if (conv2d_work_bytes(s, tile) + conv2d_place_bytes(tile) > conv2d_shared_most(v)) continue;
      // Rows of eight neighbours are read from eight different banks.
      const double clocks = conv2d_clocks(s, tile, processors) * (width < 8 && !tile.gathers ? 1.2 : 1.0);
      if (least < 0 || clocks < least) best = tile, least = clocks;
    }
  }
  return best;
}

// The tile that takes the fewest cycles on so many processors.
inline Conv2dTile choose_conv2d_tile(const Conv2dShape& s, int processors) {
  Conv2dTile best = conv2d_best_tile(s, 0, processors);
  for (int variant = 1; variant < kConv2dVariantCount; ++variant) {
    const Conv2dTile tile = conv2d_best_tile(s, variant, processors);
    if (conv2d_clocks(s, tile, processors) < conv2d_clocks(s, best, processors)) best = tile;
  }
  return best;
}

// Output pixels of a block where the input has few channels: 32 of a row, more rows where there are many blocks. None
// fits where height is 0.
struct Conv2dStemTile {
  int height, width;
};
inline Conv2dStemTile choose_conv2d_stem_tile(const Conv2dShape& s, int processors) {
  for (int height = 8; height > 0; height /= 2) {
    const int64_t rows = (height - 1) * s.stride_h + (s.kernel_h - 1) * static_cast<int64_t>(s.dilation_h) + 1;
    const int64_t columns = 31 * s.stride_w + (s.kernel_w - 1) * static_cast<int64_t>(s.dilation_w) + 1;
    const int64_t blocks =
        static_cast<int64_t>(s.batch) * conv2d_ceil_div(s.out_h, height) * conv2d_ceil_div(s.out_w, 32);
    if (rows * columns * s.channels * 2 > kConv2dStemBudget) continue;
    if (blocks >= 2 * processors || height <= 2) return {height, 32};
  }
  return {0, 0};
}

}  // namespace mobilevit_fast::cuda
