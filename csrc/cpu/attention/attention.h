// Softmax attention over sequences in blocks of tokens. Compiled once per instruction set.
#pragma once

#include "softmax.h"
#include "tokens.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// Queries, keys and values of a block as their layers make them: (3 * width, kBlockTokens).
struct Heads {
  const AttentionShape shape;

  explicit Heads(const AttentionShape& attention) : shape(attention) {}

  int64_t width() const { return shape.heads * shape.channels; }
  int64_t floats() const { return 3 * width() * kBlockTokens; }
};
constexpr bool kHeadsAreSums = true;
inline void keep_heads(const Heads&, const float*, float*) {}

// kKeys rows of scores against kVectors vectors of queries: scores[key][query] = key · query.
template <int kKeys, int kVectors>
__attribute__((noinline)) void score_tile(const float* key, const float* query, int64_t channels, float* scores) {
  Float sum[kKeys * kVectors] = {};
  multiply_columns<kKeys, kVectors>(key, kBlockTokens, query, kBlockTokens, channels, sum);
  MVF_UNROLL
  for (int i = 0; i < kKeys * kVectors; ++i) store_vector(scores + i * kLanes, sum[i]);
}

// kRows channels of the values, weighted: out[channel][query] = inverse · sum over keys of value · weight.
template <int kRows, int kVectors>
__attribute__((noinline)) void context_tile(int64_t tokens, int64_t block_stride, const float* value,
                                            const float* weights, const Float* inverse, float* out, int64_t queries) {
  Float sum[kRows * kVectors] = {};
  for (int64_t left = tokens; left > 0; left -= kBlockTokens, value += block_stride) {
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
using ContextTile = void (*)(int64_t, int64_t, const float*, const float*, const Float*, float*, int64_t);

template <int kRows, int kVectors>
ContextTile<kVectors> choose_context_tile(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return choose_context_tile<kRows - 1, kVectors>(rows);
  }
  return context_tile<kRows, kVectors>;
}

// Attention of kVectors vectors of queries of one head and one sequence of the block `own`, of which the first
// `queries` are stored. Keys and values begin with the block `first`; the next ones are `block_stride` apart. `scores`
// has room for whole blocks of keys.
template <int kVectors>
void attend(const Heads& heads, int64_t head, int64_t sequence, const float* own, const float* first,
            int64_t block_stride, float* scores, float* out, int64_t queries) {
  constexpr int kKeys = kVectorBytes == 64 ? 8 : 4;
  constexpr int64_t kStep = kVectors * kLanes;
  const AttentionShape& shape = heads.shape;
  const int64_t row = head * shape.channels * kBlockTokens + sequence * shape.tokens;
  const float *query = own + row, *keys = first + heads.width() * kBlockTokens + row;
  const float* values = keys + heads.width() * kBlockTokens;
  for (int64_t token = 0; token < shape.tokens; token += kBlockTokens) {
    const float* block = keys + token / kBlockTokens * block_stride;
    for (int64_t key = 0; key < smaller(kBlockTokens, shape.tokens - token); key += kKeys) {
      score_tile<kKeys, kVectors>(block + key, query, shape.channels, scores + (token + key) * kStep);
    }
  }
  Float inverse[kVectors];
  softmax<kVectors, float>(scores, shape.tokens, shape.scale, inverse);
  // As many equal tiles as the registers need: 20 channels are 10 + 10 rather than 12 + 8.
  const int64_t tiles = ceil_div(shape.channels, kTokenRows), rows = ceil_div(shape.channels, tiles);
  for (int64_t channel = 0; channel < shape.channels; channel += rows) {
    const int64_t count = smaller(rows, shape.channels - channel);
    choose_context_tile<kTokenRows, kVectors>(count)(shape.tokens, block_stride, values + channel * kBlockTokens,
                                                     scores, inverse, out + channel * kBlockTokens, queries);
  }
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
