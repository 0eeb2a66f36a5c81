// What matrix products multiply, in words of 32 bits: a float32 element, or, in a variant compiled with MVF_PAIRS, a
// pair of bfloat16 that follow one another in the sum. Compiled once per instruction set.
#pragma once

#include "cpu/simd.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

struct Pair {
  BFloat16 low, high;
};

#if defined(MVF_PAIRS)
constexpr bool kPairs = true;
using Factor = BFloat16;
using Word = Pair;
#else
constexpr bool kPairs = false;
using Factor = float;
using Word = float;
#endif
template <class W>
constexpr int kFactorsOf = 1;
template <>
constexpr int kFactorsOf<Pair> = 2;
constexpr int kWordFactors = kFactorsOf<Word>;

// Words of one type in the lanes of a vector.
template <class W>
struct LanesOf;
template <>
struct LanesOf<float> {
  using Vector = Float;
};
template <>
struct LanesOf<Pair> {
  using Vector = Uint;
};
template <class W>
using Lanes = typename LanesOf<W>::Vector;

// One word in every lane.
MVF_INLINE Float splat_word(const float* word) { return splat(*word); }
MVF_INLINE Uint splat_word(const Pair* word) { return load_unaligned<uint32_t>(word) - Uint{}; }

// sum + the products of x and w.
MVF_INLINE Float multiply_add(Float sum, Float x, Float w) { return sum + x * w; }
#if defined(__AVX512BF16__)
MVF_INLINE Float multiply_add(Float sum, Uint x, Uint w) {
  return (Float)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
}
#endif

MVF_INLINE Float load_as_float(const float* source) { return load_unaligned<Float>(source); }
MVF_INLINE Float load_as_float(const BFloat16* source) {
  typedef uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
  const Half half = load_unaligned<Half>(source);
  return (Float)(__builtin_convertvector(half, Uint) << 16);
}

// One vector of consecutive values as elements of type T.
MVF_INLINE void store_vector(float* target, Float v) { std::memcpy(target, &v, sizeof(v)); }
MVF_INLINE void store_vector(BFloat16* target, Float v) {
#if defined(__AVX512BF16__)
  const __m256bh half = _mm512_cvtneps_pbh((__m512)v);
#else
  typedef uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
  const Half half = __builtin_convertvector(Channels<BFloat16>::rounded(v) >> 16, Half);
#endif
  std::memcpy(target, &half, sizeof(half));
}

// One vector of words, of as many rows of factors as a word holds.
MVF_INLINE void store_words(float* target, const Float (&rows)[1]) { store_vector(target, rows[0]); }
MVF_INLINE void store_words(Pair* target, const Float (&rows)[2]) {
  Channels<BFloat16>::store(rows, (BFloat16*)target);
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
