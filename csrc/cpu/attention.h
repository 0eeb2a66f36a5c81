// Softmax attention over sequences in blocks of tokens. Compiled once per instruction set.
#pragma once

#include "tokens.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// One head: address of its queries, of its keys and values in the first block of the sequence (channel 0, token 0 of
// the sequence), and how its tokens lie.
struct Head {
  const float *query, *key, *value;
  int64_t channels;
  int64_t tokens;        // of the sequence
  int64_t block_stride;  // from one block of keys and values to the next
  float scale;           // of the scores
};

// kKeys rows of scores against kVectors vectors of queries: scores[key][query] = key · query.
template <int kKeys, int kVectors>
__attribute__((noinline)) void score_tile(const float* key, const float* query, int64_t channels, float* scores) {
  Float sum[kKeys * kVectors] = {};
  multiply_columns<kKeys, kVectors>(key, kBlockTokens, query, kBlockTokens, channels, sum);
  MVF_UNROLL
  for (int i = 0; i < kKeys * kVectors; ++i) store_vector(scores + i * kLanes, sum[i]);
}

// Turns scores (keys, queries) into exp(scale · (score - largest score of the query)); returns one over their sums.
template <int kVectors>
MVF_INLINE void softmax(float* scores, int64_t keys, float scale, Float (&inverse)[kVectors]) {
  constexpr int kKeys = kVectorBytes == 64 ? 8 / kVectors : 4 / kVectors;
  constexpr int kCount = kKeys * kVectors;
  constexpr int64_t kStep = kVectors * kLanes;
  Float largest[kVectors], sum[kVectors] = {};
  MVF_UNROLL
  for (int v = 0; v < kVectors; ++v) largest[v] = load_unaligned<Float>(scores + v * kLanes);
  for (int64_t key = 1; key < keys; ++key) {
    MVF_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      largest[v] = at_least(largest[v], load_unaligned<Float>(scores + key * kStep + v * kLanes));
    }
  }
  MVF_UNROLL
  for (int v = 0; v < kVectors; ++v) largest[v] *= scale;
  int64_t key = 0;
  for (; key + kKeys <= keys; key += kKeys) {
    Float p[kCount];
    float* row = scores + key * kStep;
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i) p[i] = load_unaligned<Float>(row + i * kLanes) * scale - largest[i % kVectors];
    exp_nonpositive<kCount>(p);
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i) {
      store_vector(row + i * kLanes, p[i]);
      sum[i % kVectors] += p[i];
    }
  }
  for (; key < keys; ++key) {
    Float p[kVectors];
    float* row = scores + key * kStep;
    MVF_UNROLL
    for (int v = 0; v < kVectors; ++v) p[v] = load_unaligned<Float>(row + v * kLanes) * scale - largest[v];
    exp_nonpositive<kVectors>(p);
    MVF_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      store_vector(row + v * kLanes, p[v]);
      sum[v] += p[v];
    }
  }
  MVF_UNROLL
  for (int v = 0; v < kVectors; ++v) inverse[v] = 1.0f / sum[v];
}

// kRows channels of the values, weighted: out[channel][query] = inverse · sum over keys of value · weight.
template <int kRows, int kVectors>
__attribute__((noinline)) void context_tile(const Head& head, const float* value, const float* weights,
                                            const Float* inverse, float* out, int64_t queries) {
  Float sum[kRows * kVectors] = {};
  const int64_t stride = head.block_stride;
  for (int64_t left = head.tokens; left > 0; left -= kBlockTokens, value += stride) {
    const int64_t keys = smaller(left, kBlockTokens);
    for (int64_t k = 0; k < keys; ++k, weights += kVectors * kLanes) {
      Float w[kVectors];
      MVF_UNROLL
      for (int v = 0; v < kVectors; ++v) w[v] = load_unaligned<Float>(weights + v * kLanes);
      MVF_UNROLL
      for (int m = 0; m < kRows; ++m) {
        const Float x = splat(value[m * kBlockTokens + k]);
        MVF_UNROLL
        for (int v = 0; v < kVectors; ++v) sum[m * kVectors + v] += x * w[v];
      }
    }
  }
  MVF_UNROLL
  for (int m = 0; m < kRows; ++m) {
    MVF_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Float result = sum[m * kVectors + v] * inverse[v];
      float* target = out + m * kBlockTokens + v * kLanes;
      if (queries >= kVectors * kLanes) {
        store_vector(target, result);
      } else if (queries > v * kLanes) {
        store_first(target, result, smaller(kLanes, queries - v * kLanes));
      }
    }
  }
}

template <int kVectors>
using ContextTile = void (*)(const Head&, const float*, const float*, const Float*, float*, int64_t);

template <int kRows, int kVectors>
ContextTile<kVectors> choose_context_tile(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return choose_context_tile<kRows - 1, kVectors>(rows);
  }
  return context_tile<kRows, kVectors>;
}

// Attention of kVectors vectors of queries, of which the first `queries` are stored. `scores` has room for kScoreRows
// keys more than there are.
constexpr int kScoreRows = 8;

template <int kVectors>
void attend(const Head& head, float* scores, float* out, int64_t queries) {
  constexpr int kKeys = kVectorBytes == 64 ? kScoreRows : kScoreRows / 2;
  constexpr int64_t kStep = kVectors * kLanes;
  for (int64_t first = 0; first < head.tokens; first += kBlockTokens) {
    const float* block = head.key + first / kBlockTokens * head.block_stride;
    for (int64_t key = 0; key < smaller(kBlockTokens, head.tokens - first); key += kKeys) {
      score_tile<kKeys, kVectors>(block + key, head.query, head.channels, scores + (first + key) * kStep);
    }
  }
  Float inverse[kVectors];
  softmax<kVectors>(scores, head.tokens, head.scale, inverse);
  // As many equal tiles as the registers need: 20 channels are 10 + 10 rather than 12 + 8.
  const int64_t tiles = ceil_div(head.channels, kTokenRows), rows = ceil_div(head.channels, tiles);
  for (int64_t channel = 0; channel < head.channels; channel += rows) {
    const int64_t count = smaller(rows, head.channels - channel);
    choose_context_tile<kTokenRows, kVectors>(count)(head, head.value + channel * kBlockTokens, scores, inverse,
                                                     out + channel * kBlockTokens, queries);
  }
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
