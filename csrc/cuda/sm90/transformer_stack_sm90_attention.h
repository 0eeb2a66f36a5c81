// Attention of one head after another, by a warpgroup: what sequences of all lengths have in common, and those of 64
// and 16 tokens.
#pragma once

#include "transformer_stack_sm90_group.h"

namespace mobilevit_fast::cuda {

constexpr float kLargestHalf = 65504.0f;
constexpr float kNoScore = -1e38f;  // far below any score: the difference of two scores is still a number

template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::take_turn() const {
  if (S::kTurns) named_barrier_sync(3 + group, kStackGroups * 128);
}
template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::give_turn() const {
  if (S::kTurns) named_barrier_arrive(4 - group, kStackGroups * 128);
}

template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::attend() {
  if constexpr (S::kPair) {
    {
      float sums[S::kQkv / 2] = {};
      const uint32_t bias = ring.template multiply_all<S::kSteps, Pieces::kQkv, S::kQkv>(
          [&](int k, uint64_t b) { Product<S::kQkv>::ss(sums, normed_step(k), b, k > 0); });
      keep(sums);
      hand_out(sums, bias, heads_done);
      ring.give_back();
    }
    MVF_NO_UNROLL
    for (int head = 0; head + 1 < kStackHeads; ++head) attend_pair<true>(head == 0);
    attend_pair<false>(false);
    ring.give_back(kProjPieces - 1);
  } else if constexpr (S::kTurns) {
    attend_group<false>();
    MVF_NO_UNROLL
    for (int head = 1; head < kStackHeads; ++head) attend_group<true>();
    begin_projection();
    end_projection();
  } else {
    MVF_NO_UNROLL
    for (int head = 0; head < kStackHeads; ++head) {
      attend_warp();
      begin_projection();
      end_projection();
      if (head + 1 < kStackHeads) ring.give_back();
    }
  }
}

// --- What all lengths have in common ---

// (Accumulators of kCount tiles + bias) * scale as words of two elements: two words, one of each row, a tile.
template <class T, class S>
template <int kCount>
MVF_DEVICE void StackGroup<T, S>::to_words(const float* sums, uint32_t bias_at, float scale, uint32_t* words) {
  MVF_UNROLL
  for (int j = 0; j < kCount; ++j) {
    const Float2 b = load_shared_at<Float2>(bias_at + j * 32);
    words[2 * j] = pack<T>((sums[4 * j] + b.x) * scale, (sums[4 * j + 1] + b.y) * scale);
    words[2 * j + 1] = pack<T>((sums[4 * j + 2] + b.x) * scale, (sums[4 * j + 3] + b.y) * scale);
  }
}
template <class T, class S>
template <int kCount>
MVF_DEVICE void StackGroup<T, S>::to_query(const uint32_t (&words)[kCount], uint32_t (&q)[S::kHeadSteps][4]) {
  MVF_UNROLL
  for (int i = 0; i < 4 * S::kHeadSteps; ++i) q[i / 4][i % 4] = i < kCount ? words[i < kCount ? i : 0] : 0u;
}

// Keys and values of the warpgroup's tokens, the first of which is key number `first_key` of the buffer at `to`.
template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::store_keys_values(const float* sums, uint32_t bias_at, uint32_t to, int first_key) {
  to += first_key * 16 + warp * 256 + lane * 4;
  constexpr int kBatch = kLoadsAhead ? S::kHeadTiles : 1;
  MVF_UNROLL
  for (int first = 0; first < 2 * S::kHeadTiles; first += kBatch) {
    uint32_t words[2 * kBatch];
    to_words<kBatch>(sums + first * 4, bias_at + first * 32, 1.0f, words);
    if (S::kMasked && S::kPair && first <= kMaskTile && kMaskTile < first + kBatch && lane % 4 == kMaskLane) {
      MVF_UNROLL
      for (int r = 0; r < 2; ++r) {
        const bool counts = first_key + warp * 16 + lane / 4 + 8 * r < p.tokens;
        words[2 * (kMaskTile - first) + r] = pack<T>(counts ? 0.0f : -kLargestHalf, 0.0f);
      }
    }
    MVF_UNROLL
    for (int i = 0; i < 2 * kBatch; ++i) {
      store_shared_at(to + (first + i / 2) * S::kKeys * 16 + i % 2 * 128, words[i]);
    }
  }
}

// Scores of keys from the first-th on.
template <class T, class S>
template <int kCount>
MVF_DEVICE void StackGroup<T, S>::scores(float (&s)[kCount], const uint32_t (&q)[S::kHeadSteps][4], uint32_t at,
                                         int first) {
  wgmma_fence();
  MVF_UNROLL
  for (int k = 0; k < S::kHeadSteps; ++k) {
    // Where a head has no second half of a step, the first one again meets zeros of the query.
    const bool whole = (k + 1) * kMatrixDepth <= S::kHeadWidth;
    Product<2 * kCount>::rs(s, q[k], operand(at + first + 2 * k * S::kKeys, whole ? S::kKeys : 0, 8), k > 0);
  }
  wgmma_commit();
}
// Those of keys beyond the sequence's last token count for nothing. A pair of blocks masks them by a feature.
template <class T, class S>
template <int kCount>
MVF_DEVICE void StackGroup<T, S>::mask(float (&s)[kCount]) const {
  if constexpr (S::kMasked && !S::kPair) {
    const int end = p.tokens - lane % 4 * 2;
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (i / 4 * kMatrixColumns + i % 2 >= end) s[i] = kNoScore;
    }
  }
}
template <class T, class S>
MVF_DEVICE uint64_t StackGroup<T, S>::values_step(uint32_t at, int key) const {  // transposed: keys are the depth
  return operand(at + S::kHeadBytes / 16 + key, 8, S::kKeys);
}

// Of each of a lane's two rows, among the lane's own numbers; and among those of all four lanes that have the row.
template <class T, class S>
template <int kCount>
MVF_DEVICE void StackGroup<T, S>::largest(const float (&s)[kCount], float (&most)[2]) {
  MVF_UNROLL
  for (int r = 0; r < 2; ++r) {
    most[r] = maximum(s[2 * r], s[2 * r + 1]);
    MVF_UNROLL
    for (int i = 4 + 2 * r; i < kCount; i += 4) most[r] = maximum(most[r], maximum(s[i], s[i + 1]));
  }
}
template <class T, class S>
MVF_DEVICE float StackGroup<T, S>::largest_of_lanes(float most) {
  most = maximum(most, shuffle_xor(most, 1));
  return maximum(most, shuffle_xor(most, 2));
}

// Scores become weights relative to the largest one.
template <class T, class S>
template <int kCount>
MVF_DEVICE void StackGroup<T, S>::softmax(float (&s)[kCount], float (&total)[2]) {
  float most[2];
  largest(s, most);
  most[0] = largest_of_lanes(most[0]), most[1] = largest_of_lanes(most[1]);
  total[0] = total[1] = 0.0f;
  MVF_UNROLL
  for (int i = 0; i < kCount; ++i) {
    s[i] = exp2_approximate(s[i] - most[i / 2 % 2]);
    total[i / 2 % 2] += s[i];
  }
  total[0] = add_lanes(total[0]), total[1] = add_lanes(total[1]);
}

// The context takes the query's place.
template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::finish(const float (&o)[S::kHeadWidth / 2], const float (&total)[2]) {
  MVF_UNROLL
  for (int r = 0; r < 2; ++r) {
    const float inverse = reciprocal_approximate(total[r]);
    MVF_UNROLL
    for (int j = 0; j < S::kHeadTiles; ++j) {
      query[j / 2][j % 2 * 2 + r] = pack<T>(o[4 * j + 2 * r] * inverse, o[4 * j + 2 * r + 1] * inverse);
    }
    if constexpr (S::kHeadTiles % 2 != 0) query[S::kHeadSteps - 1][2 + r] = 0u;
  }
}
template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::begin_projection() {
  keep(query);
  last_vectors = ring.template begin<S::kHeadSteps, Pieces::kProj, S::kFeatures>(
      [&](int k, uint64_t b) { Product<S::kFeatures>::rs(x, query[k], b, 1); });
}
template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::end_projection() {  // but for its last piece
  wgmma_wait<0>();
  keep(x);
  ring.give_back(kProjPieces - 1);
}

// --- 64 tokens: a sequence is a warpgroup's ---

// With kAfter the last head's context is still to be projected, as this one's will be.
template <class T, class S>
template <bool kAfter>
MVF_DEVICE void StackGroup<T, S>::attend_group() {
  take_turn();
  if (kAfter) begin_projection();
  float sums[S::kQkv / 2] = {};
  const uint32_t bias = ring.template begin<S::kSteps, Pieces::kQkv, S::kQkv>(
      [&](int k, uint64_t b) { Product<S::kQkv>::ss(sums, normed_step(k), b, k > 0); });
  wgmma_wait<0>();
  give_turn();
  keep(sums);
  keep(x);
  if (kAfter) ring.give_back(kProjPieces);
  const uint32_t bias_at = bias + lane % 4 * 8, buffer = heads_done % 2;
  uint32_t words[2 * S::kHeadTiles];
  to_words<S::kHeadTiles>(sums, bias_at, p.score_scale, words);
  to_query(words, query);
  store_keys_values(sums + S::kHeadTiles * 4, bias_at + S::kHeadTiles * 32, buffers + buffer * 2 * S::kHeadBytes, 0);
  ring.give_back(kQkvPieces);
  fence_async();
  sync_group();
  attend_64(place_of(buffers) + buffer * (2 * S::kHeadBytes / 16));
  ++heads_done;
}

template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::attend_64(uint32_t at) {
  float s[32] = {}, total[2];
  keep(query);
  scores(s, query, at, 0);
  wgmma_wait<0>();
  keep(s);
  mask(s);
  softmax(s, total);
  uint32_t w[4][4];
  MVF_UNROLL
  for (int i = 0; i < 16; ++i) w[i / 4][i % 4] = pack<T>(s[2 * i], s[2 * i + 1]);
  keep(w);
  float o[S::kHeadWidth / 2] = {};
  wgmma_fence();
  MVF_UNROLL
  for (int n = 0; n < 4; ++n) Product<S::kHeadWidth>::template rs<1>(o, w[n], values_step(at, n * 16), n > 0);
  wgmma_commit();
  wgmma_wait<0>();
  keep(o);
  finish(o, total);
}

// --- 16 tokens: a sequence is a warp's. Its keys are right operands as they are, its values transposed ---

// A head's query, key or value.
template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::next_part(float scale, uint32_t (&words)[2 * S::kHeadTiles]) {
  float sums[S::kQkv / 2] = {};
  const uint32_t bias = ring.template multiply_all<S::kSteps, Pieces::kQkv, S::kQkv>(
      [&](int k, uint64_t b) { Product<S::kQkv>::ss(sums, normed_step(k), b, k > 0); });
  keep(sums);
  to_words<S::kHeadTiles>(sums, bias + lane % 4 * 8, scale, words);
  ring.give_back();
}

template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::attend_warp() {
  float s[8], total[2];
  {
    uint32_t words[2 * S::kHeadTiles], keys[2 * S::kHeadTiles];
    next_part(p.score_scale, words);
    to_query(words, query);
    next_part(1.0f, keys);
    float tiles[2][4] = {};  // (16 queries, 8 keys) each
    MVF_UNROLL
    for (int k = 0; k < S::kHeadSteps; ++k) {
      MVF_UNROLL
      for (int t = 0; t < 2; ++t) {
        const bool whole = 2 * k + 1 < S::kHeadTiles;
        const uint32_t b[2] = {keys[4 * k + t], whole ? keys[whole ? 4 * k + 2 + t : 0] : 0u};
        multiply_matrix<T>(tiles[t], query[k], b);
      }
    }
    MVF_UNROLL
    for (int i = 0; i < 8; ++i) s[i] = tiles[i / 4][i % 4];
  }
  uint32_t values[2 * S::kHeadTiles];
  next_part(1.0f, values);
  mask(s);
  softmax(s, total);
  const uint32_t w[4] = {pack<T>(s[0], s[1]), pack<T>(s[2], s[3]), pack<T>(s[4], s[5]), pack<T>(s[6], s[7])};
  float o[S::kHeadWidth / 2] = {};
  MVF_UNROLL
  for (int j = 0; j < S::kHeadTiles; ++j) {
    const uint32_t b[2] = {transpose_matrix(values[2 * j]), transpose_matrix(values[2 * j + 1])};
    float d[4] = {};
    multiply_matrix<T>(d, w, b);
    MVF_UNROLL
    for (int i = 0; i < 4; ++i) o[4 * j + i] = d[i];
  }
  finish(o, total);
}

}  // namespace mobilevit_fast::cuda
