// Pixels times a strip of weights, in vectors. Compiled once per instruction set.
#pragma once

#include "epilogue.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// Vectors of outputs and rows of inputs that a tile holds in registers. 32 registers take 24 accumulators, 16 take 12;
// more than eight rows would not leave enough registers for their addresses.
#if defined(__AVX512F__)
constexpr int kMaxVectors = 4;
constexpr int tile_height(int vectors) { return vectors == 4 ? 6 : 8; }
#else
constexpr int kMaxVectors = 2;
constexpr int tile_height(int) { return 6; }
#endif

// Weights that come next, `step` words of which the second-level cache reads with each product: the first tile of a
// panel goes through it faster than memory can follow. Many reads at once would hold up those of the tile.
struct Ahead {
  const float* next;
  int64_t step;
};

// sum[m][v] += row m · column v over `length` words.
template <int kRows, int kVectors>
MVF_INLINE void multiply_run(const Word* const* rows, int64_t first, int64_t length, const float* column, int64_t ldb,
                             Ahead& ahead, Float (&sum)[kRows * kVectors]) {
  const Word* a[kRows];
  MVF_UNROLL
  for (int m = 0; m < kRows; ++m) a[m] = rows[m] + first;
  for (int64_t k = 0; k < length; ++k, column += ldb, ahead.next += ahead.step) {
    __builtin_prefetch(ahead.next, 0, 2);
    __builtin_prefetch(ahead.next + kBlock, 0, 2);
    Lanes<Word> w[kVectors];
    MVF_UNROLL
    for (int v = 0; v < kVectors; ++v) w[v] = load_unaligned<Lanes<Word>>(column + v * kLanes);
    MVF_UNROLL
    for (int m = 0; m < kRows; ++m) {
      const Lanes<Word> x = splat_word(a[m] + k);
      MVF_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[m * kVectors + v] = multiply_add(sum[m * kVectors + v], x, w[v]);
    }
  }
}

// total[m][v] = row m · column v over all segments of `length` words each, in sums of about `sum_length` words.
template <int kRows, int kVectors>
MVF_INLINE void multiply_rows(const Word* const* rows, const Segment* segments, int64_t count, int64_t length,
                              int64_t sum_length, const float* b, int64_t ldb, Ahead ahead, float* total) {
  constexpr int kCount = kRows * kVectors;
  Float sum[kCount] = {};
  bool first = true;
  int64_t words = 0;
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t begin = 0; begin < length;) {
      if (words >= sum_length) {
        MVF_UNROLL
        for (int i = 0; i < kCount; ++i) {
          if (!first) sum[i] += load_unaligned<Float>(total + i * kLanes);
          store_vector(total + i * kLanes, sum[i]);
          sum[i] = Float{};
        }
        first = false, words = 0;
      }
      const int64_t run = smaller(length - begin, sum_length - words);
      multiply_run<kRows, kVectors>(rows, segments[s].a + begin, run, b + (segments[s].b + begin) * ldb, ldb, ahead,
                                    sum);
      begin += run, words += run;
    }
  }
  if (first) {
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i) store_vector(total + i * kLanes, sum[i]);
  } else {
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i)
      store_vector(total + i * kLanes, sum[i] + load_unaligned<Float>(total + i * kLanes));
  }
}

template <class T, int kRows, int kVectors>
__attribute__((noinline)) void pixel_tile(const PixelInput& in, const float* b, int64_t ldb, const Ahead& ahead,
                                          const PixelOutput<T>& out, int64_t pixel, int64_t channel) {
  float sums[kRows * kVectors * kLanes];
  multiply_rows<kRows, kVectors>(in.rows + pixel, in.segments, in.count, in.length, in.sum_length, b, ldb, ahead, sums);
  finish_tile<T, kVectors>(sums, kRows, out, pixel, channel);
}

template <class T>
using PixelTile = void (*)(const PixelInput&, const float*, int64_t, const Ahead&, const PixelOutput<T>&, int64_t,
                           int64_t);

// The tile of `rows` rows, at most kRows.
template <class T, int kRows, int kVectors>
PixelTile<T> choose_pixel_tile(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return choose_pixel_tile<T, kRows - 1, kVectors>(rows);
  }
  return pixel_tile<T, kRows, kVectors>;
}

// All pixels times the columns `b` of a panel; `next` are the weights that follow it, `floats` of them worth reading.
template <class T, int kVectors>
void multiply_strip(const PixelInput& in, int64_t pixels, const float* b, int64_t ldb, const float* next,
                    int64_t floats, const PixelOutput<T>& out, int64_t channel) {
  constexpr int kHeight = tile_height(kVectors);
  const int64_t depth = in.count * in.length;  // 0 where nothing but padding is seen
  Ahead ahead{next, ceil_div(floats, larger(1, ceil_div(pixels, kHeight) * depth))};
  int64_t pixel = 0;
  for (; pixel + kHeight <= pixels; pixel += kHeight, ahead.next += depth * ahead.step) {
    pixel_tile<T, kHeight, kVectors>(in, b, ldb, ahead, out, pixel, channel);
  }
  if (pixel < pixels) choose_pixel_tile<T, kHeight, kVectors>(pixels - pixel)(in, b, ldb, ahead, out, pixel, channel);
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
