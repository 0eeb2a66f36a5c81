// AVX-512 and a matrix unit on machines that have AVX2 alone, for a library in which tests run every variant of the CPU
// kernels.
//
// Included before the sources of the variants for AVX-512, which are compiled for AVX2: they find these functions by
// the names of intrinsics, in a namespace that is nearer to them than that of the compiler's own. Each does what
// Intel's manual says of its instruction.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define MVF_EMULATE_ISAS
#define __AVX512F__ 1
#if defined(MVF_PAIRS)
#define __AVX512BF16__ 1
#endif
// Macros of GCC, of clang, or where nothing is optimised.
#undef _mm512_setr_epi32
#undef _mm512_maskz_shuffle_i32x4

#define MVF_HELPER static inline __attribute__((always_inline))
// Calls: in place, in the kernels' unrolled loops, they would take a compiler a minute for each file.
#define MVF_INSTRUCTION static __attribute__((noinline, unused))

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

constexpr int kEmulatedWords = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Shorts __attribute__((vector_size(32)));

#define MVF_EACH_WORD _Pragma("GCC unroll 16") for (int i = 0; i < kEmulatedWords; ++i)

template <class Half, class Vector>
MVF_HELPER Half half_of(Vector v, int half) {
  Half result;
  std::memcpy(&result, (const char*)&v + half * sizeof(result), sizeof(result));
  return result;
}

// What an operation on registers of AVX2 makes of both halves.
template <class Half, class Operation, class... Vectors>
MVF_HELPER Words by_halves(Operation operation, Vectors... v) {
  const Half halves[] = {operation(half_of<Half>(v, 0)...), operation(half_of<Half>(v, 1)...)};
  Words result;
  std::memcpy(&result, halves, sizeof(result));
  return result;
}

// Elements of kSize words whose bit of the mask is not set are zero.
template <int kSize = 1>
MVF_HELPER Words masked(uint32_t mask, Words v) {
  if (mask == (1u << kEmulatedWords / kSize) - 1) return v;
  MVF_EACH_WORD v[i] = (mask >> i / kSize) & 1u ? v[i] : 0u;
  return v;
}

MVF_HELPER Words masked_load(uint32_t mask, const void* source) {
  uint32_t words[kEmulatedWords] = {};
  for (int i = 0; i < kEmulatedWords; ++i) {
    if ((mask >> i) & 1u) std::memcpy(words + i, (const char*)source + 4 * i, 4);
  }
  Words v;
  std::memcpy(&v, words, sizeof(v));
  return v;
}

// From the first or the second half of every 128 bits, elements of kSize words of a and b by turns.
template <int kSize, int kHalf>
MVF_HELPER Words unpacked(__m512i a, __m512i b) {
  Words result{};
  MVF_EACH_WORD {
    const int element = i % 4 / kSize, from = i / 4 * 4 + 2 * kHalf + element / 2 * kSize + i % kSize;
    result[i] = element % 2 == 0 ? ((Words)a)[from] : ((Words)b)[from];
  }
  return result;
}

// Subnormal numbers are zero, of the same sign.
MVF_HELPER Words flushed(Words bits) { return bits & ((Words)((bits & 0x7f800000u) != 0u) | 0x80000000u); }

// sum + x · w, rounded once.
MVF_HELPER Words fused(Words sum, Words x, Words w) {
  const auto multiply_add = [](__m256 s, __m256 a, __m256 b) { return _mm256_fmadd_ps(a, b, s); };
  return flushed(by_halves<__m256>(multiply_add, flushed(sum), flushed(x), flushed(w)));
}
MVF_HELPER Words even_factors(Words pairs) { return pairs << 16; }
MVF_HELPER Words odd_factors(Words pairs) { return pairs & 0xffff0000u; }

MVF_INSTRUCTION __m512i _mm512_set1_epi32(int value) { return (__m512i)(Words{} + (uint32_t)value); }
template <class... Values>
MVF_INSTRUCTION __m512i _mm512_setr_epi32(Values... values) {
  return (__m512i)Words{(uint32_t)values...};
}
MVF_INSTRUCTION __m512i _mm512_add_epi32(__m512i a, __m512i b) { return (__m512i)((Words)a + (Words)b); }

MVF_INSTRUCTION void _mm512_storeu_si512(void* target, __m512i v) { std::memcpy(target, &v, sizeof(v)); }
MVF_INSTRUCTION __m512i _mm512_maskz_loadu_epi32(__mmask16 mask, const void* source) {
  return (__m512i)masked_load(mask, source);
}
MVF_INSTRUCTION __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* source) {
  return (__m512)masked_load(mask, source);
}

MVF_INSTRUCTION __m512 _mm512_maskz_max_ps(__mmask16 mask, __m512 a, __m512 b) {
  const auto maximum = [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); };
  return (__m512)masked(mask, by_halves<__m256>(maximum, a, b));
}
MVF_INSTRUCTION __m512 _mm512_maskz_min_ps(__mmask16 mask, __m512 a, __m512 b) {
  const auto minimum = [](__m256 x, __m256 y) { return _mm256_min_ps(x, y); };
  return (__m512)masked(mask, by_halves<__m256>(minimum, a, b));
}
MVF_INSTRUCTION __m512 _mm512_maskz_sqrt_ps(__mmask16 mask, __m512 a) {
  const auto root = [](__m256 x) { return _mm256_sqrt_ps(x); };
  return (__m512)masked(mask, by_halves<__m256>(root, a));
}
// As wrong as it may be: 14 bits are kept of the fraction, and what is cut off is up to 2^-14 of the number.
MVF_INSTRUCTION __m512 _mm512_maskz_rcp14_ps(__mmask16 mask, __m512 a) {
  return (__m512)masked(mask, (Words)(1.0f / (Floats)a) & ~0x1ffu);
}

MVF_INSTRUCTION __m512i _mm512_maskz_permutexvar_epi32(__mmask16 mask, __m512i from, __m512i a) {
  const __m256i low = half_of<__m256i>(a, 0), high = half_of<__m256i>(a, 1);
  const auto chosen = [low, high](__m256i index) {
    const __m256 in_low = (__m256)_mm256_permutevar8x32_epi32(low, index);
    const __m256 in_high = (__m256)_mm256_permutevar8x32_epi32(high, index);
    return _mm256_blendv_ps(in_low, in_high, (__m256)_mm256_slli_epi32(index, 28));
  };
  return (__m512i)masked(mask, by_halves<__m256i>([&](__m256i index) { return (__m256i)chosen(index); }, from));
}
MVF_INSTRUCTION __m512 _mm512_permutex2var_ps(__m512 a, __m512i from, __m512 b) {
  const Words index = (Words)from;
  Floats result{};
  MVF_EACH_WORD result[i] = index[i] & 16u ? ((Floats)b)[index[i] & 15u] : ((Floats)a)[index[i] & 15u];
  return (__m512)result;
}
MVF_INSTRUCTION __m512i _mm512_maskz_unpacklo_epi32(__mmask16 mask, __m512i a, __m512i b) {
  return (__m512i)masked(mask, unpacked<1, 0>(a, b));
}
MVF_INSTRUCTION __m512i _mm512_maskz_unpackhi_epi32(__mmask16 mask, __m512i a, __m512i b) {
  return (__m512i)masked(mask, unpacked<1, 1>(a, b));
}
MVF_INSTRUCTION __m512i _mm512_maskz_unpacklo_epi64(__mmask8 mask, __m512i a, __m512i b) {
  return (__m512i)masked<2>(mask, unpacked<2, 0>(a, b));
}
MVF_INSTRUCTION __m512i _mm512_maskz_unpackhi_epi64(__mmask8 mask, __m512i a, __m512i b) {
  return (__m512i)masked<2>(mask, unpacked<2, 1>(a, b));
}
// Two bits of `from` for each 128 bits of the result: the first two are of a, the others of b.
MVF_INSTRUCTION __m512i _mm512_maskz_shuffle_i32x4(__mmask16 mask, __m512i a, __m512i b, int from) {
  Words result{};
  MVF_EACH_WORD {
    const int word = ((from >> i / 4 * 2) & 3) * 4 + i % 4;
    result[i] = i < 8 ? ((Words)a)[word] : ((Words)b)[word];
  }
  return (__m512i)masked(mask, result);
}

MVF_INSTRUCTION __m512i _mm512_maskz_cvtepu16_epi32(__mmask16 mask, __m256i a) {
  return (__m512i)masked(mask, __builtin_convertvector((Shorts)a, Words));
}

#if defined(MVF_PAIRS)

// To nearest even, whatever the processor is set to; subnormal numbers become zero, and NaN stays NaN.
MVF_INSTRUCTION __m256bh _mm512_cvtneps_pbh(__m512 a) {
  const Words bits = flushed((Words)a);
  const Words nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words is_nan = (Words)((bits & 0x7fffffffu) > 0x7f800000u);
  return (__m256bh) __builtin_convertvector((is_nan & (bits >> 16 | 0x40u)) | (~is_nan & nearest), Shorts);
}

// Odd numbers first; neither takes nor gives subnormal numbers.
MVF_INSTRUCTION __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  const Words odd = fused((Words)sum, odd_factors((Words)a), odd_factors((Words)b));
  return (__m512)fused(odd, even_factors((Words)a), even_factors((Words)b));
}

#endif
#if defined(MVF_TILES)

constexpr int kEmulatedTiles = 8, kEmulatedRows = 16;
thread_local bool tiles_are_configured = false;
thread_local Words tile_data[kEmulatedTiles][kEmulatedRows];

// While it lives, the calling thread has tiles.
class TileScope {
 public:
  TileScope() { std::memset(tile_data, 0, sizeof(tile_data)), tiles_are_configured = true; }
  ~TileScope() { tiles_are_configured = false; }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// Without a configuration, every instruction for tiles is a fault.
inline Words* tile(int number) {
  if (!tiles_are_configured) __builtin_trap();
  return tile_data[number];
}

template <int kTile>
void zero_tile() {
  std::memset(tile(kTile), 0, sizeof(tile_data[kTile]));
}
template <int kTile>
void load_tile(const void* source, int64_t stride) {
  Words* rows = tile(kTile);
  for (int64_t m = 0; m < kEmulatedRows; ++m) std::memcpy(rows + m, (const char*)source + m * stride, sizeof(Words));
}
template <int kTile>
void store_tile(float* target, int64_t stride) {
  const Words* rows = tile(kTile);
  for (int64_t m = 0; m < kEmulatedRows; ++m) std::memcpy(target + m * stride, rows + m, sizeof(Words));
}

// TDPBF16PS: even and odd numbers are summed apart, and subnormal numbers are zero.
template <int kSum, int kA, int kB>
void multiply_tile() {
  Words* sum = tile(kSum);
  const Words *a = tile(kA), *b = tile(kB);
  const auto add = [](__m256 x, __m256 y) { return _mm256_add_ps(x, y); };
  for (int64_t m = 0; m < kEmulatedRows; ++m) {
    Words even{}, odd{};
    for (int64_t k = 0; k < kEmulatedWords; ++k) {
      const Words x = Words{} + ((const uint32_t*)(a + m))[k];
      even = fused(even, even_factors(x), even_factors(b[k]));
      odd = fused(odd, odd_factors(x), odd_factors(b[k]));
    }
    const Words both = flushed(by_halves<__m256>(add, even, odd));
    sum[m] = flushed(by_halves<__m256>(add, flushed(sum[m]), both));
  }
}

#endif
#undef MVF_EACH_WORD
#undef MVF_INSTRUCTION
#undef MVF_HELPER

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
