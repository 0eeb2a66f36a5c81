// Softmax attention over sequences in blocks of tokens, in tiles of a matrix unit: the same as attention.h.
#pragma once

#include "softmax.h"
#include "tokens.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// Queries, keys and values of a block as tiles take them, head after head. Channels are padded with zeros to whole
// tiles, so that what lies behind a head is never multiplied by anything else.
//
// queries (words, kBlockTokens), two channels a word; keys (kBlockTokens, words), likewise; values (channels,
// kBlockTokens) of bfloat16, for every sequence of the block apart, zero beyond its tokens.
struct Heads {
  const AttentionShape shape;
  const int64_t words;     // of a token and head
  const int64_t channels;  // rows of values

  explicit Heads(const AttentionShape& attention)
      : shape(attention),
        words(round_up(ceil_div(shape.channels, kWordFactors), kTileSide)),
        channels(round_up(shape.channels, kTileSide)) {}

  static constexpr int64_t kValueWords = kBlockTokens / kWordFactors;

  int64_t query(int64_t head) const { return head * words * kBlockTokens; }
  int64_t key(int64_t head) const { return (shape.heads + head) * words * kBlockTokens; }
  int64_t value(int64_t head, int64_t sequence) const {
    return key(shape.heads) + (sequence * shape.heads + head) * channels * kValueWords;
  }
  // Tiles of a sequence that does not begin with its block reach behind the queries into the keys and behind the keys
  // into the values, never further; what they bring from there makes no part of a result.
  int64_t floats() const { return value(0, shape.per_block); }
};

constexpr bool kHeadsAreSums = false;

// out[column][row] = in[row][column] of 16 by 16 words. `in` are rows in registers.
MVF_INLINE void store_transposed(const Uint (&in)[kTileSide], Word* out, int64_t stride) {
  __m512i a[kTileSide], b[kTileSide];
  MVF_UNROLL
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_maskz_unpacklo_epi32(0xffff, (__m512i)in[i], (__m512i)in[i + 1]);
    a[i + 1] = _mm512_maskz_unpackhi_epi32(0xffff, (__m512i)in[i], (__m512i)in[i + 1]);
  }
  MVF_UNROLL
  for (int i = 0; i < 16; i += 4) {
    MVF_UNROLL
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = _mm512_maskz_unpacklo_epi64(0xff, a[i + j], a[i + j + 2]);
      b[i + 2 * j + 1] = _mm512_maskz_unpackhi_epi64(0xff, a[i + j], a[i + j + 2]);
    }
  }
  // b[4 i + j] has, in its 128-bit lane l, columns 4 l + j of rows 4 i to 4 i + 3.
  MVF_UNROLL
  for (int j = 0; j < 4; ++j) {
    const __m512i low01 = _mm512_maskz_shuffle_i32x4(0xffff, b[j], b[4 + j], 0x44),
                  low23 = _mm512_maskz_shuffle_i32x4(0xffff, b[8 + j], b[12 + j], 0x44);
    const __m512i high01 = _mm512_maskz_shuffle_i32x4(0xffff, b[j], b[4 + j], 0xee),
                  high23 = _mm512_maskz_shuffle_i32x4(0xffff, b[8 + j], b[12 + j], 0xee);
    _mm512_storeu_si512(out + j * stride, _mm512_maskz_shuffle_i32x4(0xffff, low01, low23, 0x88));
    _mm512_storeu_si512(out + (4 + j) * stride, _mm512_maskz_shuffle_i32x4(0xffff, low01, low23, 0xdd));
    _mm512_storeu_si512(out + (8 + j) * stride, _mm512_maskz_shuffle_i32x4(0xffff, high01, high23, 0x88));
    _mm512_storeu_si512(out + (12 + j) * stride, _mm512_maskz_shuffle_i32x4(0xffff, high01, high23, 0xdd));
  }
}

// One vector of words: channels `first` and on of `in` (channels, kBlockTokens), zero beyond `channels`.
MVF_INLINE Uint word_of_rows(const float* in, int64_t first, int64_t channels) {
  Float rows[kWordFactors] = {};
  MVF_UNROLL
  for (int i = 0; i < kWordFactors; ++i) {
    if (first + i < channels) rows[i] = load_unaligned<Float>(in + (first + i) * kBlockTokens);
  }
  Word words[kLanes];
  store_words(words, rows);
  return load_unaligned<Uint>(words);
}

// From the sums of the query, key and value layers (3 * width, kBlockTokens) of one block.
inline void keep_heads(const Heads& heads, const float* qkv, float* kept) {
  const AttentionShape& shape = heads.shape;
  const int64_t width = shape.heads * shape.channels * kBlockTokens;
  for (int64_t head = 0; head < shape.heads; ++head) {
    const float* in = qkv + head * shape.channels * kBlockTokens;
    Word* query = (Word*)(kept + heads.query(head));
    Word* key = (Word*)(kept + heads.key(head));
    for (int64_t word = 0; word < heads.words; word += kTileSide) {
      for (int64_t v = 0; v < kBlockTokens; v += kLanes) {
        Uint tile[kTileSide];
        MVF_UNROLL
        for (int i = 0; i < kTileSide; ++i) {
          const int64_t channel = (word + i) * kWordFactors;
          const Uint q = word_of_rows(in + v, channel, shape.channels);
          std::memcpy(query + (word + i) * kBlockTokens + v, &q, sizeof(q));
          tile[i] = word_of_rows(in + width + v, channel, shape.channels);
        }
        store_transposed(tile, key + v * heads.words + word, heads.words);
      }
    }
    for (int64_t sequence = 0; sequence < shape.per_block; ++sequence) {
      const float* values = in + 2 * width + sequence * shape.tokens;
      BFloat16* value = (BFloat16*)(kept + heads.value(head, sequence));
      const int64_t tokens = shape.per_block > 1 ? shape.tokens : kBlockTokens;
      for (int64_t c = 0; c < heads.channels; ++c) {
        for (int64_t v = 0; v < kBlockTokens; v += kLanes, value += kLanes) {
          const int64_t count = c < shape.channels ? smaller(kLanes, larger(0, tokens - v)) : 0;
          const __mmask16 mask = (__mmask16)((1u << count) - 1);
          store_vector(value, (Float)_mm512_maskz_loadu_ps(mask, values + c * kBlockTokens + v));
        }
      }
    }
  }
}

// scores[key][query] = key · query, 32 keys by kVectors vectors of queries.
template <int kVectors>
MVF_INLINE void score_tiles(const Word* key, const Word* query, int64_t words, float* scores) {
  zero_sums<2, kVectors>();
  for (int64_t k = 0; k < words; k += kTileSide) {
    load_tile<kTilesA>(key + k, words * sizeof(Word));
    load_tile<kTilesA + 1>(key + kTileSide * words + k, words * sizeof(Word));
    load_tile<kTilesB>(query + k * kBlockTokens, kBlockBytes);
    if constexpr (kVectors > 1) load_tile<kTilesB + 1>(query + k * kBlockTokens + kTileSide, kBlockBytes);
    multiply_tiles<2, kVectors>();
  }
  store_sums<2, kVectors>(scores);
}

// kRowTiles times 16 channels of the values, weighted: see context_tile in attention.h.
template <int kRowTiles, int kVectors>
MVF_INLINE void context_tiles(const float* value, int64_t block_stride, int64_t blocks, const Word* weights,
                              const Float* inverse, float* out, int64_t rows, int64_t queries) {
  constexpr int64_t kStep = kVectors * kLanes;
  alignas(64) float sums[kRowTiles * kTileSide * kStep];
  zero_sums<kRowTiles, kVectors>();
  for (int64_t block = 0; block < blocks; ++block, value += block_stride, weights += kTileSide * kStep) {
    load_tile<kTilesA>(value, kTileBytes);
    if constexpr (kRowTiles > 1) load_tile<kTilesA + 1>(value + kTileSide * Heads::kValueWords, kTileBytes);
    load_tile<kTilesB>(weights, kStep * sizeof(Word));
    if constexpr (kVectors > 1) load_tile<kTilesB + 1>(weights + kTileSide, kStep * sizeof(Word));
    multiply_tiles<kRowTiles, kVectors>();
  }
  store_sums<kRowTiles, kVectors>(sums);
  for (int64_t row = 0; row < rows; ++row) {
    MVF_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Float result = load_unaligned<Float>(opaque(sums) + row * kStep + v * kLanes) * inverse[v];
      float* target = out + row * kBlockTokens + v * kLanes;
      if (queries >= kStep) {
        store_vector(target, result);
      } else if (queries > v * kLanes) {
        store_first(target, result, smaller(kLanes, queries - v * kLanes));
      }
    }
  }
}

// As attend in attention.h.
template <int kVectors>
void attend(const Heads& heads, int64_t head, int64_t sequence, const float* own, const float* first,
            int64_t block_stride, float* scores, float* out, int64_t queries) {
  const AttentionShape& shape = heads.shape;
  const int64_t column = sequence * shape.tokens;
  const Word* query = (const Word*)(own + heads.query(head)) + column;
  const Word* key = (const Word*)(first + heads.key(head)) + column * heads.words;
  const int64_t blocks = ceil_div(shape.tokens, kBlockTokens);
  for (int64_t block = 0; block < blocks; ++block) {
    score_tiles<kVectors>((const Word*)((const float*)key + block * block_stride), query, heads.words,
                          scores + block * kBlockTokens * kVectors * kLanes);
  }
  Float inverse[kVectors];
  softmax<kVectors, Word>(scores, shape.tokens, shape.scale, inverse);
  Word* weights = (Word*)scores;
  const int64_t joined = ceil_div(shape.tokens, kWordFactors) * kVectors * kLanes;
  std::memset(weights + joined, 0, (blocks * kTileSide * kVectors * kLanes - joined) * sizeof(Word));
  for (int64_t channel = 0; channel < shape.channels; channel += 2 * kTileSide) {
    const int64_t rows = smaller(2 * kTileSide, shape.channels - channel);
    const float* value = first + heads.value(head, sequence) + channel * Heads::kValueWords;
    (rows > kTileSide ? context_tiles<2, kVectors> : context_tiles<1, kVectors>)(value, block_stride, blocks, weights,
                                                                                 inverse, out + channel * kBlockTokens,
                                                                                 rows, queries);
  }
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
