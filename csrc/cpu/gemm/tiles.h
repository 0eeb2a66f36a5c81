// Tiles of a matrix unit (AMX): 16 rows of 16 words, pairs of bfloat16 or float32 accumulators. Compiled once per
// instruction set; only a variant with MVF_TILES has them. In the library of the tests they are those of
// tests/native/avx512.h.
#pragma once

#include "factors.h"
#include "gemm_layout.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

#if defined(MVF_TILES)
constexpr RowGroups kRowGroups = kTileRows;
#else
constexpr RowGroups kRowGroups = kVectorRows;
#endif

#if defined(MVF_TILES)

// Tiles 0 to 3 are accumulators, row of tiles by row of tiles; the others factors.
constexpr int kTilesA = 4, kTilesB = 6, kTileCount = 8;
constexpr int64_t kTileBytes = kTileSide * sizeof(Word);  // of a row

#if !defined(MVF_EMULATE_ISAS)

struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  TileConfiguration() {
    for (int i = 0; i < kTileCount; ++i) row_bytes[i] = kTileBytes, rows[i] = kTileSide;
  }
};

class TileScope {
 public:
  TileScope() {
    const TileConfiguration configuration;
    __asm__ volatile("ldtilecfg %0" ::"m"(configuration));
  }
  ~TileScope() { __asm__ volatile("tilerelease" ::); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// The compiler's own intrinsics do not tell it that memory is read.
template <int kTile>
MVF_INLINE void zero_tile() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
template <int kTile>
MVF_INLINE void load_tile(const void* source, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(source), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
MVF_INLINE void store_tile(float* target, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(target), "r"(stride * 4), "i"(kTile) : "memory");
}
template <int kSum, int kA, int kB>
MVF_INLINE void multiply_tile() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
}

#endif

// The products of kRows by kColumns tiles that are loaded.
template <int kRows, int kColumns>
MVF_INLINE void multiply_tiles() {
  multiply_tile<0, kTilesA, kTilesB>();
  if constexpr (kColumns > 1) multiply_tile<1, kTilesA, kTilesB + 1>();
  if constexpr (kRows > 1) multiply_tile<2, kTilesA + 1, kTilesB>();
  if constexpr (kRows > 1 && kColumns > 1) multiply_tile<3, kTilesA + 1, kTilesB + 1>();
}

template <int kRows, int kColumns>
MVF_INLINE void zero_sums() {
  zero_tile<0>();
  if constexpr (kColumns > 1) zero_tile<1>();
  if constexpr (kRows > 1) zero_tile<2>();
  if constexpr (kRows > 1 && kColumns > 1) zero_tile<3>();
}

// Accumulators as kRows tiles under one another, rows of kColumns tiles.
template <int kRows, int kColumns>
MVF_INLINE void store_sums(float* sums) {
  constexpr int64_t kStride = kColumns * kTileSide;
  store_tile<0>(sums, kStride);
  if constexpr (kColumns > 1) store_tile<1>(sums + kTileSide, kStride);
  if constexpr (kRows > 1) store_tile<2>(sums + kTileSide * kStride, kStride);
  if constexpr (kRows > 1 && kColumns > 1) store_tile<3>(sums + kTileSide * kStride + kTileSide, kStride);
}

// A tile of one word row per address, whose first `words` words are there; the others are zero.
MVF_INLINE void gather_rows(const Word* const* rows, int64_t offset, int64_t words, int64_t valid, Word* target) {
  const __mmask16 mask = (__mmask16)((1u << words) - 1);
  for (int64_t row = 0; row < kTileSide; ++row) {
    const Word* source = rows[smaller(row, valid - 1)] + offset;
    _mm512_storeu_si512(target + row * kTileSide, _mm512_maskz_loadu_epi32(mask, source));
  }
}

// The first `words` rows of a tile; the others are zero.
MVF_INLINE void copy_tile_rows(const float* source, int64_t stride, int64_t words, Word* target) {
  for (int64_t row = 0; row < kTileSide; ++row) {
    const Uint v = row < words ? load_unaligned<Uint>(source + row * stride) : Uint{};
    std::memcpy(target + row * kTileSide, &v, sizeof(v));
  }
}

#else

class TileScope {};

#endif

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
