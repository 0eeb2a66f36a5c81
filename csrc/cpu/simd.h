// Vectors of the instruction set this file is compiled for, on the vector extensions of GCC and Clang.
//
// Only for sources that are compiled once per instruction set (MVF_ISA names the variant). Everything here has
// internal linkage: a function emitted with AVX-512 instructions must never be merged with the portable one.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__clang__)
#define MVF_UNROLL _Pragma("unroll")
#else
#define MVF_UNROLL _Pragma("GCC unroll 32")
#endif
#define MVF_INLINE static inline __attribute__((always_inline))

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
constexpr int kLanes = kVectorBytes / 4;

typedef float Float __attribute__((vector_size(kVectorBytes)));
typedef int32_t Int __attribute__((vector_size(kVectorBytes)));
typedef uint32_t Uint __attribute__((vector_size(kVectorBytes)));

// A bfloat16 number as its bits.
struct BFloat16 {
  uint16_t bits;
};

// The same pointer, of unknown origin to the compiler. Without it every address that is a multiple of a stride away
// becomes a loop variable of its own, and two dozen of those do not fit the registers.
template <class T>
MVF_INLINE T* opaque(T* pointer) {
  __asm__("" : "+r"(pointer));
  return pointer;
}

template <class V, class T>
MVF_INLINE V load_unaligned(const T* source) {
  V value;
  std::memcpy(&value, source, sizeof(V));
  return value;
}

MVF_INLINE Float splat(float value) { return value - Float{}; }

// The larger and the smaller of a bound and x; both keep NaN in x.
#if defined(__AVX512F__)
MVF_INLINE Float at_least(Float bound, Float x) { return (Float)_mm512_maskz_max_ps(0xffff, (__m512)bound, (__m512)x); }
MVF_INLINE Float at_most(Float bound, Float x) { return (Float)_mm512_maskz_min_ps(0xffff, (__m512)bound, (__m512)x); }
#elif defined(__AVX2__)
MVF_INLINE Float at_least(Float bound, Float x) { return (Float)_mm256_max_ps((__m256)bound, (__m256)x); }
MVF_INLINE Float at_most(Float bound, Float x) { return (Float)_mm256_min_ps((__m256)bound, (__m256)x); }
#else
MVF_INLINE Float at_least(Float bound, Float x) { return x < bound ? bound : x; }
MVF_INLINE Float at_most(Float bound, Float x) { return x > bound ? bound : x; }
#endif

// About 1 / d for 1 <= d < 1e38: a relative error of at most 2^-11, or exact where there is no such instruction.
MVF_INLINE Float reciprocal_estimate(Float d) {
#if defined(__AVX512F__)
  return (Float)_mm512_maskz_rcp14_ps(0xffff, (__m512)d);
#elif defined(__AVX2__)
  return (Float)_mm256_rcp_ps((__m256)d);
#else
  return 1.0f / d;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr bool kEstimateIsCoarse = true;  // worse than bfloat16 needs
#else
constexpr bool kEstimateIsCoarse = false;
#endif

#define MVF_EACH \
  MVF_UNROLL     \
  for (int i = 0; i < kCount; ++i)

// e = exp(kSign · x) + kPlus for kCount vectors with |x| <= 88, step by step: a step depends on the one before, and a
// processor that looks a hundred instructions ahead would wait for most of them.
//
// exp(x) = 2^n * polynomial(rest), n a whole number. Relative error of the polynomial, minimax on its range: 2^-28
// (exp, degree 6) where kExact, otherwise 2^-13.7 (exp2, degree 3), a sixteenth of a bfloat16 rounding step.
template <bool kExact, int kSign, int kPlus, int kCount>
MVF_INLINE void exponential(const Float* x, Float* e) {
  constexpr float kLog2E = kSign * 1.44269504088896341f;
  Float rest[kCount], shifted[kCount];
  if constexpr (!kExact) {
    // 1.5 * 2^23 and the bias: adding it leaves the exponent in the low bits.
    constexpr float kRoundToInteger = 12582912.0f + 127.0f;
    MVF_EACH shifted[i] = x[i] * kLog2E + kRoundToInteger;
    MVF_EACH e[i] = shifted[i] - kRoundToInteger;
    MVF_EACH rest[i] = x[i] * kLog2E - e[i];
    MVF_EACH e[i] = 5.517166802e-2f * rest[i] + 2.426111221e-1f;
    MVF_EACH e[i] = e[i] * rest[i] + 6.932609857e-1f;
    MVF_EACH e[i] = e[i] * rest[i] + 9.999280735e-1f;
    MVF_EACH rest[i] = (Float)((Int)shifted[i] << 23);
    MVF_EACH e[i] = e[i] * rest[i] + (float)kPlus;
    return;
  }
#if defined(__AVX512F__)
  // With 2^(j / 16) from a table in a register, n counts sixteenths and degree 3 suffices for 2^-29: five instructions
  // fewer, in the place where these kernels spend most of them. log2(e) as one number costs a relative 2^-26 |x|.
  constexpr float kLog2ELow = kSign * 1.92596299e-8f;  // what kLog2E lacks
  constexpr float kRoundToSixteenth = 786432.0f;       // 1.5 * 2^19: adding it leaves n in the low bits
  const Int table = {                                  // less the bits that j itself adds to the exponent
                     0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
                     0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
  MVF_EACH shifted[i] = x[i] * kLog2E + kRoundToSixteenth;
  MVF_EACH e[i] = shifted[i] - kRoundToSixteenth;
  MVF_EACH rest[i] = x[i] * kLog2E - e[i];
  MVF_EACH rest[i] = x[i] * kLog2ELow + rest[i];
  MVF_EACH e[i] = 5.550280586e-2f * rest[i] + 2.402358949e-1f;
  MVF_EACH e[i] = e[i] * rest[i] + 6.931471825e-1f;
  MVF_EACH e[i] = e[i] * rest[i] + 1.0f;
  MVF_EACH rest[i] = (Float)((Int)_mm512_maskz_permutexvar_epi32(0xffff, (__m512i)shifted[i], (__m512i)table) +
                             ((Int)shifted[i] << 19));
  MVF_EACH e[i] = e[i] * rest[i] + (float)kPlus;
#else
  // 16 bits of ln(2), and the rest.
  constexpr float kLn2High = kSign * 0.693145751953125f, kLn2Low = kSign * 1.42860682030941723e-6f;
  constexpr float kRoundToInteger = 12582912.0f;  // 1.5 * 2^23: adding it leaves the integer in the low bits
  MVF_EACH shifted[i] = x[i] * kLog2E + kRoundToInteger;
  MVF_EACH e[i] = shifted[i] - kRoundToInteger;
  MVF_EACH rest[i] = x[i] - e[i] * kLn2High;
  MVF_EACH rest[i] = rest[i] - e[i] * kLn2Low;
  MVF_EACH rest[i] = (float)kSign * rest[i];
  MVF_EACH e[i] = 1.386378633e-3f * rest[i] + 8.367475777e-3f;
  MVF_EACH e[i] = e[i] * rest[i] + 4.166723758e-2f;
  MVF_EACH e[i] = e[i] * rest[i] + 1.666653406e-1f;
  MVF_EACH e[i] = e[i] * rest[i] + 0.5f;
  MVF_EACH e[i] = e[i] * rest[i] + 1.0f;
  MVF_EACH e[i] = e[i] * rest[i] + 1.0f;
  MVF_EACH e[i] = (Float)((Int)e[i] + ((Int)shifted[i] << 23));
  if (kPlus != 0) MVF_EACH e[i] = (float)kPlus + e[i];
#endif
}

// v = exp(v) where v <= 0; below -87, where the true value is under 2e-38, the value at -87 stands.
template <bool kExact, int kCount>
MVF_INLINE void exp_nonpositive(Float* v) {
  Float e[kCount];
  MVF_EACH v[i] = at_least(splat(-87.0f), v[i]);
  exponential<kExact, 1, 0, kCount>(v, e);
  MVF_EACH v[i] = e[i];
}

// v = v * sigmoid(v), sigmoid(x) = 1 / (1 + exp(-x)). Zero from -87.25 down, where the true value is above -2e-36 and
// the reciprocal would be subnormal.
template <bool kExact, int kCount>
MVF_INLINE void silu(Float* v) {
  constexpr float kLimit = 87.25f;
  Float rest[kCount], e[kCount];
  MVF_EACH v[i] = at_least(splat(-kLimit), v[i]);
  MVF_EACH rest[i] = at_most(splat(kLimit), v[i]);
  exponential<kExact, -1, 1, kCount>(rest, e);
  MVF_EACH rest[i] = reciprocal_estimate(e[i]);
  constexpr int kNewtonSteps = (kExact ? 1 : 0) + (kEstimateIsCoarse ? 1 : 0);
  Float wrong[kCount];
  MVF_UNROLL
  for (int step = 0; step < kNewtonSteps; ++step) {
    MVF_EACH wrong[i] = 1.0f - e[i] * rest[i];
    MVF_EACH rest[i] = rest[i] + rest[i] * wrong[i];
  }
  MVF_EACH v[i] = (Float)((Int)(v[i] * rest[i]) & ~(Int)(v[i] <= -kLimit));
}
#undef MVF_EACH

// The same for any number of vectors, in groups that fit the registers.
template <bool kExact, int kCount>
MVF_INLINE void silu_all(Float* v) {
  constexpr int kGroup = kVectorBytes == 64 ? 8 : 4;
  MVF_UNROLL
  for (int i = 0; i + kGroup <= kCount; i += kGroup) silu<kExact, kGroup>(v + i);
  if constexpr (kCount % kGroup != 0) silu<kExact, kCount % kGroup>(v + kCount / kGroup * kGroup);
}

MVF_INLINE Float relu(Float x) { return at_least(Float{}, x); }

// kChannels consecutive channels of element type T as kVectors float32 vectors.
template <class T>
struct Channels;

template <>
struct Channels<float> {
  static constexpr int kVectors = 1;
  static constexpr int kChannels = kLanes;
  static constexpr bool kExact = true;

  MVF_INLINE void load(const float* source, Float (&v)[kVectors]) { v[0] = load_unaligned<Float>(source); }
  MVF_INLINE void load_float(const float* source, Float (&v)[kVectors]) { load(source, v); }
  MVF_INLINE void store(const Float* v, float* target) { std::memcpy(target, &v[0], sizeof(Float)); }
};

// The pairs of bfloat16 in a 32-bit lane are split into a vector of the even and one of the odd channels: one
// instruction each and no movement across lanes, and as little to join them again.
template <>
struct Channels<BFloat16> {
  static constexpr int kVectors = 2;
  static constexpr int kChannels = 2 * kLanes;
  static constexpr bool kExact = false;

  MVF_INLINE void load(const BFloat16* source, Float (&v)[kVectors]) {
    const Uint pairs = load_unaligned<Uint>(source);
    v[0] = (Float)(pairs << 16);
    v[1] = (Float)(pairs & 0xffff0000u);
  }

  MVF_INLINE void load_float(const float* source, Float (&v)[kVectors]) {
    const Float low = load_unaligned<Float>(source), high = load_unaligned<Float>(source + kLanes);
#if defined(__AVX512F__)
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    v[0] = (Float)_mm512_permutex2var_ps((__m512)low, even, (__m512)high);
    v[1] = (Float)_mm512_permutex2var_ps((__m512)low, odd, (__m512)high);
#else
    Float even{}, odd{};
    MVF_UNROLL
    for (int i = 0; i < kLanes / 2; ++i) {
      even[i] = low[2 * i], even[kLanes / 2 + i] = high[2 * i];
      odd[i] = low[2 * i + 1], odd[kLanes / 2 + i] = high[2 * i + 1];
    }
    v[0] = even, v[1] = odd;
#endif
  }

  // Rounds to nearest even; the result is in the upper half of each lane.
  MVF_INLINE Uint rounded(Float value) {
    const Uint bits = (Uint)value;
    const Uint nearest = bits + 0x7fffu + ((bits >> 16) & 1u);
    return (value != value) ? (bits | 0x00400000u) : nearest;
  }

  MVF_INLINE void store(const Float* v, BFloat16* target) {
#if defined(__AVX512BF16__)  // subnormal numbers become zero
    const Uint low = (Uint)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)_mm512_cvtneps_pbh((__m512)v[0]));
    const Uint high = (Uint)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)_mm512_cvtneps_pbh((__m512)v[1]));
    const Uint pairs = low | (high << 16);
#else
    const Uint pairs = (rounded(v[0]) >> 16) | (rounded(v[1]) & 0xffff0000u);
#endif
    std::memcpy(target, &pairs, sizeof(pairs));
  }
};

// The same for fewer than kChannels channels: through a zero-filled buffer, for tensors that narrow.
template <class T, bool kPartial>
MVF_INLINE void load_channels(const T* source, int64_t count, Float (&v)[Channels<T>::kVectors]) {
  if (kPartial) {
    T buffer[Channels<T>::kChannels] = {};
    std::memcpy(buffer, source, count * sizeof(T));
    Channels<T>::load(buffer, v);
  } else {
    Channels<T>::load(source, v);
  }
}

template <class T, bool kPartial>
MVF_INLINE void load_float_channels(const float* source, int64_t count, Float (&v)[Channels<T>::kVectors]) {
  if (kPartial) {
    float buffer[Channels<T>::kChannels] = {};
    std::memcpy(buffer, source, count * sizeof(float));
    Channels<T>::load_float(buffer, v);
  } else {
    Channels<T>::load_float(source, v);
  }
}

template <class T, bool kPartial>
MVF_INLINE void store_channels(const Float* v, int64_t count, T* target) {
  if (kPartial) {
    T buffer[Channels<T>::kChannels];
    Channels<T>::store(v, buffer);
    std::memcpy(target, buffer, count * sizeof(T));
  } else {
    Channels<T>::store(v, target);
  }
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
