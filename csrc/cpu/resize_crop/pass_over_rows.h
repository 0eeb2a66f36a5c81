// The pass that shortens columns: a row of the result is a sum of rows.
#pragma once

#include "cpu/simd.h"
#include "resize_crop.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

constexpr int32_t kHalf = 1 << (kCoefficientBits - 1);

// A sum with its rounding in it, as a uint8 number.
MVF_INLINE uint8_t byte_of(uint32_t sum) {
  const int32_t value = (int32_t)sum >> kCoefficientBits;
  return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

// Coefficient k of a window.
MVF_INLINE uint32_t coefficient(const int32_t* words, int64_t pairs, int64_t k) {
  const int shift = k % 2 * 16;
  const int32_t high = (int16_t)((uint32_t)words[k / 2] >> shift);
  const uint32_t low = (uint32_t)words[pairs + k / 2] >> shift & 0xffff;
  return ((uint32_t)high << kLowBits) + low;
}

// Elements [begin, end) of the sum of 2 * pairs rows.
void add_rows_by_element(const uint8_t* const* rows, const int32_t* words, int64_t pairs, uint8_t* y, int64_t begin,
                         int64_t end) {
  constexpr int64_t kTogether = 64;
  for (int64_t first = begin; first < end; first += kTogether) {
    const int64_t count = end - first < kTogether ? end - first : kTogether;
    uint32_t sums[kTogether];
    for (int64_t i = 0; i < count; ++i) sums[i] = kHalf;
    for (int64_t k = 0; k < 2 * pairs; ++k) {
      const uint32_t c = coefficient(words, pairs, k);
      const uint8_t* row = rows[k] + first;
      for (int64_t i = 0; i < count; ++i) sums[i] += row[i] * c;
    }
    for (int64_t i = 0; i < count; ++i) y[first + i] = byte_of(sums[i]);
  }
}

#if defined(__AVX2__)
constexpr int64_t kRowStep = 32;

// Two rows side by side: products with both parts of their coefficients, added up.
struct RowSums {
  __m256i high[4], low[4];
};

MVF_INLINE RowSums empty_sums() {
  RowSums sums;
  MVF_UNROLL
  for (int i = 0; i < 4; ++i) sums.high[i] = _mm256_setzero_si256(), sums.low[i] = _mm256_set1_epi32(kHalf);
  return sums;
}

MVF_INLINE void add_pair(const uint8_t* first, const uint8_t* second, __m256i high, __m256i low, RowSums& sums) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i a = _mm256_loadu_si256((const __m256i*)first), b = _mm256_loadu_si256((const __m256i*)second);
  const __m256i lower = _mm256_unpacklo_epi8(a, b), upper = _mm256_unpackhi_epi8(a, b);
  const __m256i pixels[4] = {_mm256_unpacklo_epi8(lower, zero), _mm256_unpackhi_epi8(lower, zero),
                             _mm256_unpacklo_epi8(upper, zero), _mm256_unpackhi_epi8(upper, zero)};
  MVF_UNROLL
  for (int i = 0; i < 4; ++i) {
    sums.high[i] = _mm256_add_epi32(sums.high[i], _mm256_madd_epi16(pixels[i], high));
    sums.low[i] = _mm256_add_epi32(sums.low[i], _mm256_madd_epi16(pixels[i], low));
  }
}

MVF_INLINE __m256i rounded(__m256i high, __m256i low) {
  return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, kLowBits), low), kCoefficientBits);
}

MVF_INLINE void store_sums(const RowSums& sums, uint8_t* y) {
  __m256i sum[4];
  MVF_UNROLL
  for (int i = 0; i < 4; ++i) sum[i] = rounded(sums.high[i], sums.low[i]);
  const __m256i lower = _mm256_packs_epi32(sum[0], sum[1]), upper = _mm256_packs_epi32(sum[2], sum[3]);
  _mm256_storeu_si256((__m256i*)y, _mm256_packus_epi16(lower, upper));
}

// Begins of the vectors of a row; the last one may overlap.
template <class Run>
MVF_INLINE void for_vectors(int64_t bytes, const Run& run) {
  for (int64_t at = 0; at + kRowStep <= bytes; at += kRowStep) run(at);
  if (bytes % kRowStep > 0) run(bytes - kRowStep);
}

// The same for few pairs, whose coefficients stay in registers, and for any number.
template <int kPairs>
void add_few_rows(const uint8_t* const* rows, const int32_t* words, uint8_t* y, int64_t bytes) {
  const uint8_t* row[2 * kPairs];
  __m256i high[kPairs], low[kPairs];
  MVF_UNROLL
  for (int k = 0; k < 2 * kPairs; ++k) row[k] = rows[k];
  MVF_UNROLL
  for (int k = 0; k < kPairs; ++k) high[k] = _mm256_set1_epi32(words[k]), low[k] = _mm256_set1_epi32(words[kPairs + k]);
  for_vectors(bytes, [&](int64_t at) __attribute__((always_inline)) {
    RowSums sums = empty_sums();
    MVF_UNROLL
    for (int k = 0; k < kPairs; ++k) add_pair(row[2 * k] + at, row[2 * k + 1] + at, high[k], low[k], sums);
    store_sums(sums, y + at);
  });
}

void add_many_rows(const uint8_t* const* rows, const int32_t* words, int64_t pairs, uint8_t* y, int64_t bytes) {
  for_vectors(bytes, [&](int64_t at) __attribute__((always_inline)) {
    RowSums sums = empty_sums();
    for (int64_t k = 0; k < pairs; ++k) {
      add_pair(rows[2 * k] + at, rows[2 * k + 1] + at, _mm256_set1_epi32(words[k]), _mm256_set1_epi32(words[pairs + k]),
               sums);
    }
    store_sums(sums, y + at);
  });
}
#endif

// y = the sum of 2 * pairs rows of so many bytes.
MVF_INLINE void add_rows(const uint8_t* const* rows, const int32_t* words, int64_t pairs, uint8_t* y, int64_t bytes) {
#if defined(__AVX2__)
  if (bytes >= kRowStep) {
    if (pairs == 1) return add_few_rows<1>(rows, words, y, bytes);
    if (pairs == 2) return add_few_rows<2>(rows, words, y, bytes);
    if (pairs == 3) return add_few_rows<3>(rows, words, y, bytes);
    return add_many_rows(rows, words, pairs, y, bytes);
  }
#endif
  add_rows_by_element(rows, words, pairs, y, 0, bytes);
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
