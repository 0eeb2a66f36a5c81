// What a warpgroup does with its 64 tokens: the convolutions at both ends, layer norm, the MLP. Attention stands in
// transformer_stack_sm90_attention.h.
#pragma once

#include "cuda/mma/fragments.h"
#include "transformer_stack_sm90_weights.h"

namespace mobilevit_fast::cuda {

// A lane's elements of a row are added up.
MVF_DEVICE float add_lanes(float v) {
  v += shuffle_xor(v, 1);
  return v + shuffle_xor(v, 2);
}

// Lane l of warp w has rows 16 w + l / 4 and 8 further, and of eight columns 2 (l % 4) and the next. T: Half, BFloat16.
template <class T, class S>
class StackGroup {
 public:
  using Params = MobileViTTransformerParams;
  using Pieces = typename S::Pieces;
  template <int kColumns>
  using Product = Wgmma<T, kColumns>;

  // `memory`: the block's shared memory, where the kernel has initialised the barriers.
  MVF_DEVICE StackGroup(const Params& params, uint32_t memory, int group)
      : p(params),
        group(group),
        warp(thread_index() % 128 / kWarpSize),
        lane(thread_index() % kWarpSize),
        ring{memory, place_of(memory)},
        normed(memory + S::kNormedAt + group * S::kNormedBytes),
        buffers(memory + S::kHeadsAt + (S::kPair ? 0 : group * 4 * S::kHeadBytes)) {
    if constexpr (S::kPair) rank = cluster_rank(), peer = remote_address(memory, rank ^ 1);
  }

  MVF_DEVICE void run() {
    if (group == 1) give_turn();
    MVF_NO_UNROLL
    for (int tile = block_index(); tile < p.tiles; tile += p.blocks) {
      uint32_t a[S::kSteps][4];
      load_input(tile);
      norm<false>(a);
      MVF_NO_UNROLL
      for (int layer = 0; layer < S::kLayers; ++layer) {
        attend();
        norm<S::kPiped>(a);
        if constexpr (S::kPiped) {
          mlp_piped(a);
        } else {
          mlp_in_turn();
        }
        if (layer + 1 < S::kLayers) norm<false>(a);
      }
      store_output(tile);
    }
    if (group == 0) take_turn();
  }

 private:
  const Params& p;
  const int group, warp, lane;
  WeightRing<S> ring;
  const uint32_t normed, buffers;  // where the group's normed rows, keys and values are
  int rank = 0;                    // in the cluster of two
  uint32_t peer = 0;               // the memory of its other block
  uint32_t heads_done = 0, last_vectors = 0;
  float x[S::kFeatures / 2];         // the residual stream
  uint32_t query[S::kHeadSteps][4];  // as left operand; then the context in its place

  // --- Pixels. Channels are ordered inside the weights such that a lane has neighbours ---

  MVF_DEVICE int row_of(int tile, int half) const {
    return (tile * kStackGroups + group) * kGroupRows + warp * 16 + lane / 4 + 8 * half;
  }
  // Rows beyond the last are a few of the last tile's; a pair of blocks has none.
  MVF_DEVICE bool of_a_sequence(int row) const { return S::kPair || row < p.all_sequences * S::kTokens; }
  MVF_DEVICE bool exists(int row) const { return of_a_sequence(row) && (!S::kMasked || row % S::kTokens < p.tokens); }
  // Of patches of 2 x 2. A quotient of such small numbers is exact this way, and leaves nothing to be kept in registers
  // from tile to tile.
  MVF_DEVICE int64_t number_of(int row) const {
    const int sequence = row / S::kTokens, columns = p.width / 2;
    int token = row % S::kTokens;
    if (S::kMasked && token >= p.tokens) token = p.tokens - 1;
    const int token_row = static_cast<int>((static_cast<float>(token) + 0.5f) * p.inverse_columns);
    const int line = token_row * 2 + sequence % 4 / 2, column = (token - token_row * columns) * 2 + sequence % 2;
    return (static_cast<int64_t>(sequence / 4) * p.height * p.width + line * p.width + column) * S::kChannels;
  }

  MVF_DEVICE void load_input(int tile) {
    uint32_t a[S::kInSteps][4];
    MVF_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = row_of(tile, r);
      const T* from = static_cast<const T*>(p.x) + number_of(of_a_sequence(row) ? row : 0);
      MVF_UNROLL
      for (int i = 0; i < S::kChannels / 32; ++i) {
        const Bytes16 v = load_result(reinterpret_cast<const Bytes16*>(from + 32 * i) + lane % 4);
        a[2 * i][r] = v.word[0], a[2 * i][2 + r] = v.word[1];
        a[2 * i + 1][r] = v.word[2], a[2 * i + 1][2 + r] = v.word[3];
      }
      if constexpr (S::kChannels % 32 != 0) {
        const Bytes8 v = load_result(reinterpret_cast<const Bytes8*>(from + S::kChannels - 16) + lane % 4);
        a[S::kInSteps - 1][r] = v.word[0], a[S::kInSteps - 1][2 + r] = v.word[1];
      }
    }
    keep(a);
    MVF_UNROLL
    for (int i = 0; i < S::kFeatures / 2; ++i) x[i] = 0.0f;
    last_vectors = ring.template multiply_all<S::kInSteps, Pieces::kIn, S::kFeatures>(
        [&](int k, uint64_t b) { Product<S::kFeatures>::rs(x, a[k], b, k > 0); });
    keep(x);
  }

  MVF_DEVICE void store_output(int tile) {
    uint32_t a[S::kSteps][4];
    norm<S::kPiped>(a);
    float sums[S::kChannels / 2] = {};
    const uint32_t scale = ring.template multiply_all<S::kSteps, Pieces::kOut, S::kChannels>([&](int k, uint64_t b) {
      if constexpr (S::kPiped) {
        Product<S::kChannels>::rs(sums, a[k], b, k > 0);
      } else {
        Product<S::kChannels>::ss(sums, normed_step(k), b, k > 0);
      }
    });
    keep(sums);
    tile += zero_behind(sums[0]);  // the addresses are not those of load_input, which would be kept in registers
    const uint32_t at = scale + lane % 4 * 8;
    T* to[2];
    MVF_UNROLL
    for (int r = 0; r < 2; ++r) to[r] = static_cast<T*>(p.y) + number_of(row_of(tile, r));
    MVF_UNROLL
    for (int i = 0; i < ceil_div(S::kChannels, 32); ++i) {
      Bytes16 out[2] = {};
      MVF_UNROLL
      for (int t = 0; t < 4; ++t) {
        const int j = 4 * i + t;
        if (j >= S::kChannels / 8) break;
        const Float2 m = load_shared_at<Float2>(at + j * 32),
                     b = load_shared_at<Float2>(at + (S::kChannels + 8 * j) * 4);
        MVF_UNROLL
        for (int r = 0; r < 2; ++r) {
          const float* both = sums + 4 * j + 2 * r;
          out[r].word[t] = pack<T>(silu(both[0] * m.x + b.x), silu(both[1] * m.y + b.y));
        }
      }
      MVF_UNROLL
      for (int r = 0; r < 2; ++r) {
        if (!exists(row_of(tile, r))) continue;
        if (32 * i + 32 <= S::kChannels) {
          store_global(reinterpret_cast<Bytes16*>(to[r] + 32 * i) + lane % 4, out[r]);
        } else {
          store_global(reinterpret_cast<Bytes8*>(to[r] + 32 * i) + lane % 4, Bytes8{{out[r].word[0], out[r].word[1]}});
        }
      }
    }
    ring.give_back();
  }

  // --- Layer norm ---

  // Adds the bias of what has been added to the stream, then norms it; `last_vectors`: that bias, the norm's weight and
  // bias. Gives their slot back.
  template <bool kToRegisters>
  MVF_DEVICE void norm(uint32_t (&a)[S::kSteps][4]) {
    const uint32_t at = last_vectors + lane % 4 * 8;
    float sum[2][2] = {}, square[2][2] = {}, mean[2], inverse[2], shift[2];
    MVF_UNROLL
    for (int j = 0; j < S::kTiles; ++j) {
      const Float2 bias = load_shared_at<Float2>(at + j * 32);
      x[4 * j] += bias.x, x[4 * j + 1] += bias.y, x[4 * j + 2] += bias.x, x[4 * j + 3] += bias.y;
      sum[0][j & 1] += x[4 * j] + x[4 * j + 1], sum[1][j & 1] += x[4 * j + 2] + x[4 * j + 3];
    }
    MVF_UNROLL
    for (int r = 0; r < 2; ++r) mean[r] = add_lanes(sum[r][0] + sum[r][1]) * (1.0f / S::kFeatures);
    MVF_UNROLL
    for (int i = 0; i < 4 * S::kTiles; ++i) {
      const int r = i / 2 % 2;
      const float away = x[i] - mean[r];
      square[r][i & 1] += away * away;
    }
    MVF_UNROLL
    for (int r = 0; r < 2; ++r) {
      inverse[r] = reciprocal_root(add_lanes(square[r][0] + square[r][1]) * (1.0f / S::kFeatures) + p.eps);
      shift[r] = -mean[r] * inverse[r];
    }
    if (!kToRegisters) sync_group();  // nobody reads the last normed rows any more
    constexpr int kBatch = kLoadsAhead ? 6 : 1;
    MVF_UNROLL
    for (int first = 0; first < S::kTiles; first += kBatch) {
      Float2 w[kBatch], b[kBatch];
      MVF_UNROLL
      for (int i = 0; i < kBatch; ++i) {
        if (first + i >= S::kTiles) break;
        w[i] = load_shared_at<Float2>(at + S::kFeatures * 4 + (first + i) * 32);
        b[i] = load_shared_at<Float2>(at + S::kFeatures * 8 + (first + i) * 32);
      }
      MVF_UNROLL
      for (int i = 0; i < kBatch; ++i) {
        const int j = first + i;
        if (j >= S::kTiles) break;
        MVF_UNROLL
        for (int r = 0; r < 2; ++r) {
          const float* both = x + 4 * j + 2 * r;
          put_normed<kToRegisters>(a, j, r,
                                   pack<T>((both[0] * inverse[r] + shift[r]) * w[i].x + b[i].x,
                                           (both[1] * inverse[r] + shift[r]) * w[i].y + b[i].y));
        }
      }
    }
    if constexpr (S::kTiles % 2 != 0) {  // the rest of the last step meets weights of zero
      put_normed<kToRegisters>(a, S::kTiles, 0, 0u), put_normed<kToRegisters>(a, S::kTiles, 1, 0u);
    }
    if (kToRegisters) keep(a);
    ring.give_back();
    if (!kToRegisters) {
      fence_async();
      sync_group();
    }
  }
  template <bool kToRegisters>
  MVF_DEVICE void put_normed(uint32_t (&a)[S::kSteps][4], int j, int r, uint32_t word) {
    if (kToRegisters) {
      a[j / 2][j % 2 * 2 + r] = word;
    } else {
      store_shared_at(normed + warp * 256 + lane * 4 + j * 1024 + r * 128, word);
    }
  }
  MVF_DEVICE uint64_t normed_step(int k) const { return operand(place_of(normed) + k * 128, 64, 8); }
  MVF_DEVICE void sync_group() const { named_barrier_sync(1 + group, 128); }

  // --- Attention of all heads, added to the stream ---

  MVF_DEVICE void attend();
  template <bool kAfter>
  MVF_DEVICE void attend_group();
  MVF_DEVICE void attend_64(uint32_t at);
  MVF_DEVICE void next_part(float scale, uint32_t (&words)[2 * S::kHeadTiles]);
  MVF_DEVICE void attend_warp();
  template <bool kNext>
  MVF_DEVICE void attend_pair(bool first);
  MVF_DEVICE void hand_out(const float (&sums)[S::kQkv / 2], uint32_t bias, uint32_t number);
  MVF_DEVICE uint32_t query_address(int tile) const;
  template <int kCount>
  static MVF_DEVICE void to_words(const float* sums, uint32_t bias_at, float scale, uint32_t* words);
  template <int kCount>
  static MVF_DEVICE void to_query(const uint32_t (&words)[kCount], uint32_t (&q)[S::kHeadSteps][4]);
  MVF_DEVICE void store_keys_values(const float* sums, uint32_t bias_at, uint32_t to, int first_key);
  template <int kCount>
  MVF_DEVICE void scores(float (&s)[kCount], const uint32_t (&q)[S::kHeadSteps][4], uint32_t at, int first);
  template <int kCount>
  MVF_DEVICE void mask(float (&s)[kCount]) const;
  MVF_DEVICE uint64_t values_step(uint32_t at, int key) const;
  template <int kCount>
  static MVF_DEVICE void largest(const float (&s)[kCount], float (&most)[2]);
  static MVF_DEVICE float largest_of_lanes(float most);
  template <int kCount>
  static MVF_DEVICE void softmax(float (&s)[kCount], float (&total)[2]);
  MVF_DEVICE void finish(const float (&o)[S::kHeadWidth / 2], const float (&total)[2]);
  MVF_DEVICE void begin_projection();
  MVF_DEVICE void end_projection();
  MVF_DEVICE void take_turn() const;
  MVF_DEVICE void give_turn() const;

  // A pair has no registers to mask scores. There the feature behind a head's last is one in queries, and in keys zero,
  // or what takes all weight from a key beyond the sequence's last token, whose score is that token's otherwise.
  static constexpr int kMaskTile = S::kHeadDim / kMatrixColumns, kMaskLane = S::kHeadDim % kMatrixColumns / 2;
  static_assert(!S::kPair || S::kHeadDim % 2 == 0);

  static constexpr int kQkvPieces = ceil_div(S::kSteps, Pieces::kQkv),
                       kProjPieces = ceil_div(S::kHeadSteps, Pieces::kProj);

  // --- MLP ---

  MVF_DEVICE uint32_t begin_units(float (&sums)[S::kHiddenPart / 2], const uint32_t (&a)[S::kSteps][4]) {
    MVF_UNROLL
    for (int i = 0; i < S::kHiddenPart / 2; ++i) sums[i] = 0.0f;
    return ring.template begin<S::kSteps, Pieces::kFc1, S::kHiddenPart>(
        [&](int k, uint64_t b) { Product<S::kHiddenPart>::rs(sums, a[k], b, k > 0); });
  }
  MVF_DEVICE void activate_units(const float (&sums)[S::kHiddenPart / 2], uint32_t bias,
                                 uint32_t (&units)[S::kHiddenSteps][4]) {
    MVF_UNROLL
    for (int j = 0; j < S::kHiddenPart / 8; ++j) {
      const Float2 b = load_shared_at<Float2>(bias + lane % 4 * 8 + j * 32);
      MVF_UNROLL
      for (int r = 0; r < 2; ++r) {
        const float* both = sums + 4 * j + 2 * r;
        units[j / 2][j % 2 * 2 + r] = pack<T>(silu(both[0] + b.x), silu(both[1] + b.y));
      }
    }
    keep(units);
  }
  // While a part of the hidden units is activated, the next one is under way.
  MVF_DEVICE void mlp_piped(const uint32_t (&a)[S::kSteps][4]) {
    constexpr int kPieces1 = ceil_div(S::kSteps, Pieces::kFc1), kPieces2 = ceil_div(S::kHiddenSteps, Pieces::kFc2);
    float sums[2][S::kHiddenPart / 2];
    uint32_t bias[2];
    bias[0] = begin_units(sums[0], a);
    MVF_UNROLL
    for (int part = 0; part < S::kHiddenParts; ++part) {
      const int now = part & 1;
      if (part + 1 < S::kHiddenParts) {
        bias[1 - now] = begin_units(sums[1 - now], a);
        wgmma_wait<1>();
      } else {
        wgmma_wait<0>();
      }
      keep(sums[now]);
      uint32_t units[S::kHiddenSteps][4];
      activate_units(sums[now], bias[now], units);
      ring.give_back(kPieces1 + (part > 0 ? kPieces2 : 0));
      last_vectors = ring.template begin<S::kHiddenSteps, Pieces::kFc2, S::kFeatures>(
          [&](int k, uint64_t b) { Product<S::kFeatures>::rs(x, units[k], b, 1); });
    }
    wgmma_wait<0>();
    keep(x);
    if (kPieces2 > 1) ring.give_back(kPieces2 - 1);
  }
  MVF_DEVICE void mlp_in_turn() {
    MVF_NO_UNROLL
    for (int part = 0; part < S::kHiddenParts; ++part) {
      float sums[S::kHiddenPart / 2] = {};
      const uint32_t bias = ring.template multiply_all<S::kSteps, Pieces::kFc1, S::kHiddenPart>(
          [&](int k, uint64_t b) { Product<S::kHiddenPart>::ss(sums, normed_step(k), b, k > 0); });
      keep(sums);
      uint32_t units[S::kHiddenSteps][4];
      activate_units(sums, bias, units);
      ring.give_back();
      last_vectors = ring.template multiply_all<S::kHiddenSteps, Pieces::kFc2, S::kFeatures>(
          [&](int k, uint64_t b) { Product<S::kFeatures>::rs(x, units[k], b, 1); });
      keep(x);
      if (part + 1 < S::kHiddenParts) ring.give_back();
    }
  }
};

}  // namespace mobilevit_fast::cuda
