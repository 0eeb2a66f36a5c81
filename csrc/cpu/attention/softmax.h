// What attention in vectors and in tiles share: its shape, and softmax. Compiled once per instruction set.
#pragma once

#include "cpu/gemm/factors.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

struct AttentionShape {
  int64_t heads, channels;    // channels of a head
  int64_t tokens, per_block;  // tokens of a sequence, sequences of a block of tokens
  float scale;                // of the scores
};

template <int kCount>
struct Rows {
  static constexpr int kRows = kCount;
};

// Turns scores (keys, queries) into exp(scale · (score - largest score of the query)); returns one over their sums.
// With W = Word they are rounded to words of as many keys as a word holds; the last one is filled up with zero.
template <int kVectors, class W>
MVF_INLINE void softmax(float* scores, int64_t keys, float scale, Float (&inverse)[kVectors]) {
  constexpr int kJoined = kFactorsOf<W>, kKeys = kVectorBytes == 64 ? 8 / kVectors : 4 / kVectors;
  constexpr int64_t kStep = kVectors * kLanes;
  W* out = (W*)scores;
  Float largest[kVectors], sum[kVectors] = {};
  MVF_UNROLL
  for (int v = 0; v < kVectors; ++v) largest[v] = load_unaligned<Float>(scores + v * kLanes);
  for (int64_t key = 1; key < keys; ++key) {
    MVF_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      largest[v] = at_least(largest[v], load_unaligned<Float>(scores + key * kStep + v * kLanes));
    }
  }
  // Weights of kCount rows from `key` on, of which the first `valid` are there.
  const auto weigh = [&](auto count, int64_t key, int64_t valid) __attribute__((always_inline)) {
    constexpr int kRows = decltype(count)::kRows, kCount = kRows * kVectors;
    Float p[kCount];
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i) {
      const float* row = scores + (i / kVectors < valid ? key + i / kVectors : key) * kStep;
      // Not the difference of products: rounded, the largest one may be smaller than the exact one by thousands.
      p[i] = (load_unaligned<Float>(row + i % kVectors * kLanes) - largest[i % kVectors]) * scale;
    }
    exp_nonpositive<!kPairs, kCount>(p);
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (i / kVectors >= valid) p[i] = Float{};
      sum[i % kVectors] += p[i];
    }
    MVF_UNROLL
    for (int i = 0; i < kRows; i += kJoined) {
      MVF_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        Float rows[kJoined];
        MVF_UNROLL
        for (int j = 0; j < kJoined; ++j) rows[j] = p[(i + j) * kVectors + v];
        store_words(out + (key + i) / kJoined * kStep + v * kLanes, rows);
      }
    }
  };
  int64_t key = 0;
  for (; key + kKeys <= keys; key += kKeys) weigh(Rows<kKeys>{}, key, kKeys);
  for (; key < keys; key += kJoined) weigh(Rows<kJoined>{}, key, keys - key);
  MVF_UNROLL
  for (int v = 0; v < kVectors; ++v) inverse[v] = 1.0f / sum[v];
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
