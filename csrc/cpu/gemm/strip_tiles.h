// Pixels times a strip of weights, in tiles of a matrix unit: the same as strip_vectors.h, but that accumulation is not
// cut. A product of tiles adds up 32 products by itself before it adds them to an accumulator, whose sum is then 32
// times as short.
#pragma once

#include "epilogue.h"
#include "tiles.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

constexpr int kMaxVectors = 2;

MVF_INLINE int64_t bytes_between(const Word* a, const Word* b) { return (const char*)b - (const char*)a; }

// Whether the rows of a tile lie equally far apart, all of them.
MVF_INLINE bool evenly_spaced(const Word* const* rows, int64_t valid) {
  if (valid < kTileSide) return false;
  const int64_t step = bytes_between(rows[0], rows[1]);
  bool even = true;
  for (int64_t i = 2; i < kTileSide; ++i) even = even && bytes_between(rows[i - 1], rows[i]) == step;
  return even;
}

template <int kTile>
MVF_INLINE void load_pixels(const Word* const* rows, int64_t offset, int64_t words, int64_t valid, bool even,
                            Word* buffer) {
  if (even && words == kTileSide) {
    load_tile<kTile>(rows[0] + offset, bytes_between(rows[0], rows[1]));
  } else {
    gather_rows(rows, offset, words, valid, buffer);
    load_tile<kTile>(buffer, kTileBytes);
  }
}

template <int kTile>
MVF_INLINE void load_weights(const float* b, int64_t ldb, int64_t words, Word* buffer) {
  if (words == kTileSide) {
    load_tile<kTile>(b, ldb * sizeof(Word));
  } else {
    copy_tile_rows(b, ldb, words, buffer);
    load_tile<kTile>(buffer, kTileBytes);
  }
}

// kRowTiles times 16 pixels, of which `valid` are there.
template <class T, int kRowTiles, int kVectors>
__attribute__((noinline)) void pixel_tiles(const PixelInput& in, const float* b, int64_t ldb, const PixelOutput<T>& out,
                                           int64_t pixel, int64_t valid, int64_t channel) {
  alignas(64) float sums[kRowTiles * kTileSide * kVectors * kLanes];
  alignas(64) Word buffer[kTileSide * kTileSide];
  const Word* const* rows = in.rows + pixel;
  const Word* const* lower = rows + kTileSide;
  const bool even = evenly_spaced(rows, valid), lower_even = kRowTiles > 1 && evenly_spaced(lower, valid - kTileSide);
  zero_sums<kRowTiles, kVectors>();
  for (int64_t s = 0; s < in.count; ++s) {
    const Segment segment = in.segments[s];
    for (int64_t k = 0; k < in.length; k += kTileSide) {
      const int64_t words = smaller(kTileSide, in.length - k);
      const float* w = b + (segment.b + k) * ldb;
      load_weights<kTilesB>(w, ldb, words, buffer);
      if constexpr (kVectors > 1) load_weights<kTilesB + 1>(w + kTileSide, ldb, words, buffer);
      load_pixels<kTilesA>(rows, segment.a + k, words, valid, even, buffer);
      if constexpr (kRowTiles > 1) {
        load_pixels<kTilesA + 1>(lower, segment.a + k, words, valid - kTileSide, lower_even, buffer);
      }
      multiply_tiles<kRowTiles, kVectors>();
    }
  }
  store_sums<kRowTiles, kVectors>(sums);
  finish_tile<T, kVectors>(sums, valid, out, pixel, channel);
}

template <class T, int kVectors>
void multiply_strip(const PixelInput& in, int64_t pixels, const float* b, int64_t ldb, const float*, int64_t,
                    const PixelOutput<T>& out, int64_t channel) {
  for (int64_t pixel = 0; pixel < pixels; pixel += 2 * kTileSide) {
    const int64_t valid = smaller(2 * kTileSide, pixels - pixel);
    (valid > kTileSide ? pixel_tiles<T, 2, kVectors> : pixel_tiles<T, 1, kVectors>)(in, b, ldb, out, pixel, valid,
                                                                                    channel);
  }
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
