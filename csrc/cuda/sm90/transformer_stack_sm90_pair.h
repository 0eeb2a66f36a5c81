// Attention over 256 tokens: a sequence is a pair of blocks'.
#pragma once

#include "transformer_stack_sm90_attention.h"

namespace mobilevit_fast::cuda {

// Keys of which scores are computed at a time. In float16 there are registers to begin the next ones before.
template <class T>
constexpr int kPartKeys = 128;
template <>
constexpr int kPartKeys<Half> = 64;

// Where a lane keeps two words of its next query, for which there are no registers.
template <class T, class S>
MVF_DEVICE uint32_t StackGroup<T, S>::query_address(int tile) const {
  return ring.memory + S::kQueriesAt + group * S::kQueryBytes + (tile * 128 + warp * kWarpSize + lane) * 8;
}

// Query, key and value of head `number`: the query for this thread, the others to a buffer here and in the other block.
template <class T, class S>
MVF_DEVICE void StackGroup<T, S>::hand_out(const float (&sums)[S::kQkv / 2], uint32_t bias, uint32_t number) {
  const uint32_t bias_at = bias + lane % 4 * 8, buffer = number % 2, first_key = rank * 128 + group * 64;
  uint32_t words[2 * S::kHeadTiles];
  to_words<S::kHeadTiles>(sums, bias_at, p.score_scale, words);
  if (S::kMasked && lane % 4 == kMaskLane) words[2 * kMaskTile] = words[2 * kMaskTile + 1] = pack<T>(1.0f, 0.0f);
  MVF_UNROLL
  for (int j = 0; j < S::kHeadTiles; ++j) {
    store_shared_at(query_address(j), Bytes8{{words[2 * j], words[2 * j + 1]}});
  }
  if (number >= 2) barrier_wait(ring.memory + S::kValuesEmpty + buffer * 8, (number / 2 - 1) & 1);
  store_keys_values(sums + S::kHeadTiles * 4, bias_at + S::kHeadTiles * 32, buffers + buffer * 2 * S::kHeadBytes,
                    first_key);
  fence_async();
  sync_group();
  if (warp == 0) {  // the warpgroup's 64 tokens are 1024 bytes of every tile of eight features
    constexpr int kParts = 2 * S::kHeadTiles;
    if (lane == 0)
      barrier_expect(ring.memory + S::kValuesFull + buffer * 8, kParts * 1024);  // what comes from the other block
    sync_warp();
    const uint32_t part = buffer * 2 * S::kHeadBytes + first_key * 16 + lane * S::kKeys * 16;
    if (lane < kParts) {
      copy_bulk_remote(peer + S::kHeadsAt + part, buffers + part, 1024, peer + S::kValuesFull + buffer * 8);
    }
  }
}

// Weights of the softmax from two differences of scores to the largest, which float16 holds: bfloat16 has fewer digits
// than they need.
template <class T>
MVF_DEVICE uint32_t softmax_weights(uint32_t differences);
template <>
MVF_DEVICE uint32_t softmax_weights<Half>(uint32_t differences) {
  return exp2_half2(differences);
}
template <>
MVF_DEVICE uint32_t softmax_weights<BFloat16>(uint32_t differences) {
  const Float2 d = unpack<Half>(differences);
  return pack<BFloat16>(exp2_approximate(d.x), exp2_approximate(d.y));
}

// With kNext the next head's query, key and value come first, so that there is time for them to reach the other block.
template <class T, class S>
template <bool kNext>
MVF_DEVICE void StackGroup<T, S>::attend_pair(bool first) {
  constexpr int kPart = kPartKeys<T>, kParts = 256 / kPart, kAhead = kParts - 2;
  const uint32_t buffer = heads_done % 2, at = place_of(buffers) + buffer * (2 * S::kHeadBytes / 16);
  MVF_UNROLL
  for (int j = 0; j < 2 * S::kHeadSteps; ++j) {
    const Bytes8 both = j < S::kHeadTiles ? load_shared_at<Bytes8>(query_address(j)) : Bytes8{};
    query[j / 2][j % 2 * 2] = both.word[0], query[j / 2][j % 2 * 2 + 1] = both.word[1];
  }
  if (kNext) {
    float sums[S::kQkv / 2] = {};
    const uint32_t bias = ring.template begin<S::kSteps, Pieces::kQkv, S::kQkv>(
        [&](int k, uint64_t b) { Product<S::kQkv>::ss(sums, normed_step(k), b, k > 0); });
    wgmma_wait<0>();
    if (!first) ring.give_back(kProjPieces);
    keep(sums);
    hand_out(sums, bias, heads_done + 1);
    ring.give_back(kQkvPieces);
  }
  barrier_wait(ring.memory + S::kValuesFull + buffer * 8, heads_done / 2 & 1);
  // Scores of 256 keys do not fit in registers but as float16: those of a part of the keys are kept as differences to
  // the largest one that the lane has among them. What float16 has no room for are weights of zero.
  uint32_t w[kParts][kPart / 16][4];
  float part_most[kParts][2];
  keep(query);
  float part_scores[2][kPart / 2];
  const auto begin_part = [&](int c) {
    MVF_UNROLL
    for (int i = 0; i < kPart / 2; ++i) part_scores[c % 2][i] = 0.0f;
    scores(part_scores[c % 2], query, at, c * kPart);
  };
  begin_part(0);
  MVF_UNROLL
  for (int c = 0; c < kParts; ++c) {
    // The next part is under way while this one is rounded; the last one waits, since there are no registers for it.
    if (c > kAhead) begin_part(c);
    if (c < kAhead) {
      begin_part(c + 1);
      wgmma_wait<1>();
    } else {
      wgmma_wait<0>();
    }
    if (!kNext && c == 0) ring.give_back(kProjPieces);
    float (&s)[kPart / 2] = part_scores[c % 2];
    keep(s);
    largest(s, part_most[c]);
    MVF_UNROLL
    for (int i = 0; i < kPart / 4; ++i) {
      const float from = part_most[c][i % 2];
      w[c][i / 4][i % 4] = pack<Half>(s[2 * i] - from, s[2 * i + 1] - from);
    }
    keep(w[c]);
  }
  uint32_t more[kParts][2];  // by how much the row's largest score is larger
  MVF_UNROLL
  for (int r = 0; r < 2; ++r) {
    float most = part_most[0][r];
    MVF_UNROLL
    for (int c = 1; c < kParts; ++c) most = maximum(most, part_most[c][r]);
    most = largest_of_lanes(most);
    MVF_UNROLL
    for (int c = 0; c < kParts; ++c) {
      const float v = maximum(part_most[c][r] - most, -kLargestHalf);
      more[c][r] = pack<Half>(v, v);
    }
  }
  float o[S::kHeadWidth / 2] = {};
  MVF_UNROLL
  for (int c = 0; c < kParts; ++c) {
    MVF_UNROLL
    for (int i = 0; i < kPart / 4; ++i) {
      uint32_t& word = w[c][i / 4][i % 4];
      word = softmax_weights<T>(add_half2(word, more[c][i % 2]));
    }
    keep(w[c]);
    wgmma_fence();
    MVF_UNROLL
    for (int n = 0; n < kPart / 16; ++n) {
      const int step = c * (kPart / 16) + n;
      Product<S::kHeadWidth>::template rs<1>(o, w[c][n], values_step(at, step * 16), step > 0);
    }
    wgmma_commit();
  }
  wgmma_wait<0>();
  keep(o);
  sync_warp();
  if (lane == 0) {
    const uint32_t empty = S::kValuesEmpty + buffer * 8;
    barrier_arrive(ring.memory + empty), barrier_arrive_remote(peer + empty);
  }
  ++heads_done;
  // The values of one have added up the weights of a row, in one of its four lanes.
  constexpr int kAt = S::kHeadDim / 8 * 4, kFrom = S::kHeadDim % 8 / 2;
  const float total[2] = {shuffle(o[kAt], lane / 4 * 4 + kFrom), shuffle(o[kAt + 2], lane / 4 * 4 + kFrom)};
  finish(o, total);
  begin_projection();
  wgmma_wait<0>();
  keep(x);
}

}  // namespace mobilevit_fast::cuda
