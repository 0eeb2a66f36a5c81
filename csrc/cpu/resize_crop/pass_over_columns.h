// The pass that shortens rows: a pixel of the result is a sum of neighbouring pixels. Four rows go together, so that
// coefficients are loaded once for all of them.
#pragma once

#include "pass_over_rows.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// Bytes that a window of so many pairs reads of a row, and room behind a line for stores of whole words.
MVF_INLINE int64_t bytes_read(int64_t channels, int64_t pairs) {
  return channels == 1 ? 2 * pairs : 12 * ((pairs + 1) / 2) + 4;
}
constexpr int64_t kLineSlack = 16;

// Four rows of pixels, whose first byte is number `origin` of the row, and four lines of results.
struct FourRows {
  const uint8_t* rows[kRowsTogether];
  uint8_t* lines[kRowsTogether];
  int64_t origin;
};

template <int kChannels>
void add_columns_by_element(const WindowTable& table, const FourRows& four, int64_t begin, int64_t end) {
  const int64_t pairs = table.pairs;
  for (int64_t x = begin; x < end; ++x) {
    const int32_t* words = table.words + x * 2 * pairs;
    const int64_t at = (int64_t)table.begins[x] * kChannels - four.origin;
    uint32_t sums[kRowsTogether * kChannels];
    for (int i = 0; i < kRowsTogether * kChannels; ++i) sums[i] = kHalf;
    for (int64_t k = 0; k < 2 * pairs; ++k) {
      const uint32_t c = coefficient(words, pairs, k);
      for (int i = 0; i < kRowsTogether; ++i) {
        const uint8_t* pixel = four.rows[i] + at + k * kChannels;
        for (int channel = 0; channel < kChannels; ++channel) sums[i * kChannels + channel] += pixel[channel] * c;
      }
    }
    for (int i = 0; i < kRowsTogether; ++i) {
      for (int channel = 0; channel < kChannels; ++channel) {
        four.lines[i][x * kChannels + channel] = byte_of(sums[i * kChannels + channel]);
      }
    }
  }
}

#if defined(__AVX2__)
// The same 16 bytes in both halves.
MVF_INLINE __m256i both(__m128i half) { return _mm256_broadcastsi128_si256(half); }

MVF_INLINE __m256i load_halves(const uint8_t* lower, const uint8_t* upper) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)lower)),
                                 _mm_loadu_si128((const __m128i*)upper), 1);
}

// Sums of one pixel of four rows: in each half of a vector the red, green and blue one of a row, and one of no meaning.
template <int kPairs>
MVF_INLINE void add_rgb(const int32_t* words, int64_t any_pairs, const FourRows& four, int64_t at, __m256i (&sum)[2]) {
  const int64_t pairs = kPairs > 0 ? kPairs : any_pairs;
  constexpr char z = -1;
  const __m256i masks[2] = {both(_mm_setr_epi8(0, z, 3, z, 1, z, 4, z, 2, z, 5, z, z, z, z, z)),
                            both(_mm_setr_epi8(6, z, 9, z, 7, z, 10, z, 8, z, 11, z, z, z, z, z))};
  __m256i high[2], low[2];
  MVF_UNROLL
  for (int i = 0; i < 2; ++i) high[i] = _mm256_setzero_si256(), low[i] = _mm256_set1_epi32(kHalf);
  const auto add = [&](int64_t k, int count) __attribute__((always_inline)) {
    __m256i pixels[2];
    MVF_UNROLL
    for (int i = 0; i < 2; ++i)
      pixels[i] = load_halves(four.rows[2 * i] + at + 6 * k, four.rows[2 * i + 1] + at + 6 * k);
    MVF_UNROLL
    for (int j = 0; j < count; ++j) {
      const __m256i upper = _mm256_set1_epi32(words[k + j]), lower = _mm256_set1_epi32(words[pairs + k + j]);
      MVF_UNROLL
      for (int i = 0; i < 2; ++i) {
        const __m256i pair = _mm256_shuffle_epi8(pixels[i], masks[j]);
        high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(pair, upper));
        low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(pair, lower));
      }
    }
  };
  if constexpr (kPairs > 0) {
    MVF_UNROLL
    for (int k = 0; k + 2 <= kPairs; k += 2) add(k, 2);
    if (kPairs % 2 > 0) add(kPairs - 1, 1);
  } else {
    int64_t k = 0;
    for (; k + 2 <= pairs; k += 2) add(k, 2);
    if (k < pairs) add(k, 1);
  }
  MVF_UNROLL
  for (int i = 0; i < 2; ++i) sum[i] = rounded(high[i], low[i]);
}

template <int kPairs>
void add_columns_of_rgb(const WindowTable& table, const FourRows& given, int64_t begin, int64_t end) {
  const FourRows four = given;
  const int64_t pairs = kPairs > 0 ? kPairs : table.pairs;
  const int32_t *begins = table.begins, *words = table.words + begin * 2 * pairs;
  constexpr char z = -1;
  const __m256i close = both(_mm_setr_epi8(0, 1, 2, 4, 5, 6, z, z, 8, 9, 10, 12, 13, 14, z, z));
  for (int64_t x = begin; x < end; x += 2, words += 4 * pairs) {
    __m256i left[2], right[2];
    add_rgb<kPairs>(words, pairs, four, (int64_t)begins[x] * 3 - four.origin, left);
    add_rgb<kPairs>(words + 2 * pairs, pairs, four, (int64_t)begins[x + 1] * 3 - four.origin, right);
    const __m256i bytes =
        _mm256_packus_epi16(_mm256_packs_epi32(left[0], right[0]), _mm256_packs_epi32(left[1], right[1]));
    const __m256i pixels = _mm256_shuffle_epi8(bytes, close);
    const __m128i even = _mm256_castsi256_si128(pixels), odd = _mm256_extracti128_si256(pixels, 1);
    const int64_t two[kRowsTogether] = {_mm_cvtsi128_si64(even), _mm_cvtsi128_si64(odd), _mm_extract_epi64(even, 1),
                                        _mm_extract_epi64(odd, 1)};
    MVF_UNROLL
    for (int i = 0; i < kRowsTogether; ++i) std::memcpy(four.lines[i] + 3 * x, &two[i], 8);
  }
}

// Sums of one grey pixel of four rows, four parts of each: those of rows 0 and 1, and of rows 2 and 3.
MVF_INLINE void add_grey(const int32_t* words, int64_t pairs, const FourRows& four, int64_t at, __m256i (&sum)[2]) {
  __m256i high[2], low[2];
  MVF_UNROLL
  for (int i = 0; i < 2; ++i) high[i] = _mm256_setzero_si256(), low[i] = both(_mm_setr_epi32(kHalf, 0, 0, 0));
  for (int64_t k = 0; k < pairs; k += 4) {
    const __m256i upper = both(_mm_loadu_si128((const __m128i*)(words + k)));
    const __m256i lower = both(_mm_loadu_si128((const __m128i*)(words + pairs + k)));
    MVF_UNROLL
    for (int i = 0; i < 2; ++i) {
      int64_t two[2];
      std::memcpy(&two[0], four.rows[2 * i] + at + 2 * k, 8);
      std::memcpy(&two[1], four.rows[2 * i + 1] + at + 2 * k, 8);
      const __m256i pixels = _mm256_cvtepu8_epi16(_mm_set_epi64x(two[1], two[0]));
      high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(pixels, upper));
      low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(pixels, lower));
    }
  }
  MVF_UNROLL
  for (int i = 0; i < 2; ++i) sum[i] = _mm256_add_epi32(_mm256_slli_epi32(high[i], kLowBits), low[i]);
}

void add_columns_of_grey(const WindowTable& table, const FourRows& given, int64_t begin, int64_t end) {
  const FourRows four = given;
  const int64_t pairs = table.pairs;
  constexpr char z = -1;
  const __m256i by_rows = both(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, z, z, z, z, z, z, z, z));
  for (int64_t x = begin; x < end; x += 4) {
    __m256i halves[4];  // of a column, those of rows 0 and 2, and of rows 1 and 3, two parts of each
    MVF_UNROLL
    for (int i = 0; i < 4; ++i) {
      __m256i sum[2];
      add_grey(table.words + (x + i) * 2 * pairs, pairs, four, (int64_t)table.begins[x + i] - four.origin, sum);
      halves[i] = _mm256_hadd_epi32(sum[0], sum[1]);
    }
    const __m256i left = _mm256_srai_epi32(_mm256_hadd_epi32(halves[0], halves[1]), kCoefficientBits);
    const __m256i right = _mm256_srai_epi32(_mm256_hadd_epi32(halves[2], halves[3]), kCoefficientBits);
    const __m256i words = _mm256_packs_epi32(left, right);
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_packus_epi16(words, words), by_rows);
    const __m128i even = _mm256_castsi256_si128(bytes), odd = _mm256_extracti128_si256(bytes, 1);
    const int32_t pixels[kRowsTogether] = {_mm_cvtsi128_si32(even), _mm_cvtsi128_si32(odd), _mm_extract_epi32(even, 1),
                                           _mm_extract_epi32(odd, 1)};
    MVF_UNROLL
    for (int i = 0; i < kRowsTogether; ++i) std::memcpy(four.lines[i] + x, &pixels[i], 4);
  }
}
#endif

// Columns [begin, end) of four lines; both are multiples of columns_together().
MVF_INLINE void add_columns(const WindowTable& table, int64_t channels, const FourRows& four, int64_t begin,
                            int64_t end) {
#if defined(__AVX2__)
  if (channels == 1) return add_columns_of_grey(table, four, begin, end);
  if (table.pairs == 1) return add_columns_of_rgb<1>(table, four, begin, end);
  if (table.pairs == 2) return add_columns_of_rgb<2>(table, four, begin, end);
  if (table.pairs == 3) return add_columns_of_rgb<3>(table, four, begin, end);
  if (table.pairs == 4) return add_columns_of_rgb<4>(table, four, begin, end);
  add_columns_of_rgb<0>(table, four, begin, end);
#else
  if (channels == 1) return add_columns_by_element<1>(table, four, begin, end);
  add_columns_by_element<3>(table, four, begin, end);
#endif
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
