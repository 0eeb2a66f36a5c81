// The transformer stack of few images, divided by tokens alone: a block has 16 tokens of a sequence and computes all
// columns of all layers for them, so that blocks exchange nothing but keys and values, once a layer, through global
// memory. All weights stream through every block's shared memory, from which warps take them as fragments; a warp has
// the same columns of every layer, and of the residual stream, which stays float32.
#pragma once

#include "small_tokens_attention_sm90.h"
#include "small_tokens_stream_sm90.h"

namespace mobilevit_fast::cuda::few {

template <class S>
struct TokensKernel {
  using Params = SmallTokensParams;
  static constexpr int kThreads = S::kAllWarps * kWarpSize, kCluster = S::kCluster, kRegisters = 0;

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(4 * p.batch * S::kCluster); }
  static size_t shared_bytes(const Params&) { return S::kShared; }
  // Of 16 tokens in a layer: keys, and values.
  static constexpr int kTileBytes = 2 * S::kRowsBytes;
  static int64_t exchanged_bytes(const Params& p) {
    return int64_t{4} * p.batch * S::kLayers * S::kCluster * kTileBytes;
  }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const size_t bytes = size_t{2} * p.batch * p.height * p.width * S::kChannels;
    visit("x", p.x, bytes), visit("y", p.y, bytes), visit("weights", p.weights, size_t{S::kBytes});
    visit("exchanged", p.exchanged, static_cast<size_t>(exchanged_bytes(p)));
  }

  static MVF_DEVICE void run(const Params& p) {
    TokensKernel block(p);
    grid_launch_dependents();
    block.stream_.begin();
    grid_wait();
    block.load_pixels();
    sync_block();  // the ring's barriers are set up as well
    block.template add_layer<S::kInSteps, false>(S::kAtHidden, 0, 1 + S::kNorm1);
    MVF_NO_UNROLL
    for (int layer = 0; layer < S::kLayers; ++layer) {
      const int first = 1 + layer * S::kOfLayer;  // of the layer's vectors
      block.project_heads(first + S::kQkvBias, layer);
      if (S::kCluster > 1) {
        cluster_sync();  // keys and values of all blocks are there
      } else {
        sync_block();
      }
      block.attend(layer);
      sync_block();
      block.template add_layer<S::kPairs, true>(S::kAtNormed, first + S::kProjBias, first + S::kNorm2);
      block.widen(first + S::kFc1Bias);
      sync_block();
      // The norm is the first one of the next layer, or the one at the end.
      block.template add_layer<2 * S::kPairs, true>(S::kAtHidden, first + S::kFc2Bias, first + S::kOfLayer);
    }
    block.store_outputs(1 + S::kLayers * S::kOfLayer + 2);
  }

 private:
  MVF_DEVICE explicit TokensKernel(const Params& p)
      : p_(p), shared_(shared_memory_begin()), stream_(p.weights, shared_) {
    lane_ = thread_index() % kWarpSize, warp_ = warp_uniform(thread_index() / kWarpSize);
  }

  // The block's 16 tokens, and the sequence that they are of.
  MVF_DEVICE int tile() const { return block_index() % S::kCluster; }
  MVF_DEVICE int sequence() const { return block_index() / S::kCluster; }
  // Of a token's row: patches of 2x2 pixels, a sequence for each of a patch's places.
  MVF_DEVICE int64_t pixel(int row) const {
    const int token = tile() * S::kRows + row, image = sequence() / 4, place = sequence() % 4, across = p_.width / 2;
    return (int64_t{1} * image * p_.height + 2 * (token / across) + place / 2) * p_.width + 2 * (token % across) +
           place % 2;
  }
  // Pixels as fragments, where hidden units will lie.
  MVF_DEVICE void load_pixels() const {
    for (int i = thread_index(); i < S::kInSteps * kWarpSize; i += kThreads) {
      const int lane = i % kWarpSize, column = i / kWarpSize * 16 + lane % 4 * 2;
      const Half* first = p_.x + pixel(lane / 4) * S::kChannels + column;
      const Half* second = p_.x + pixel(lane / 4 + 8) * S::kChannels + column;
      const Bytes16 f{{load_result(words(first)), load_result(words(second)), load_result(words(first + 8)),
                       load_result(words(second + 8))}};
      store_shared_at(shared_ + S::kAtHidden + i * 16, f);
    }
  }

  // The warp's pair of tiles number `own`, and whether there is one; a warp that has none computes the last one as
  // well, so that nothing is read or written on some paths alone, which would keep registers alive on all others.
  MVF_DEVICE bool has(int own, int pairs = S::kPairs) const { return warp_ * S::kOwn + own < pairs; }
  MVF_DEVICE int pair(int own, int pairs = S::kPairs) const {
    const int wanted = warp_ * S::kOwn + own;
    return (S::kOwn * S::kColumnWarps == pairs) || wanted < pairs ? wanted : pairs - 1;
  }
  // Two numbers of a vector behind the stream, for the lane's columns of a tile.
  MVF_DEVICE Float2 vector_at(int number, int pair, int tile) const {
    const float* vector = reinterpret_cast<const float*>(p_.weights + S::kStreamBytes / 16) + number * S::kPadded;
    return load_global(reinterpret_cast<const Float2*>(vector + pair * 16 + tile * 8 + lane_ % 4 * 2));
  }

  // sums[group][own][tile]: rows, as fragments at `rows`, times the next weights of the stream, kGroups times kPairs
  // pairs of tiles.
  template <int kGroups, int kSteps, int kPairs>
  MVF_DEVICE void multiply(int rows, float (&sums)[kGroups][S::kOwn][2][4]) {
    constexpr int kWanted = 4 / (kGroups * S::kOwn), kTogether = kWanted > 1 ? kWanted : 1;
    MVF_NO_UNROLL
    for (int first = 0; first < kSteps / kTogether * kTogether; first += kTogether) {
      multiply_steps<kTogether, kGroups, kPairs>(rows, first, sums);
    }
    constexpr int kRest = kSteps % kTogether;
    if constexpr (kRest > 0) multiply_steps<kRest, kGroups, kPairs>(rows, kSteps - kRest, sums);
  }
  template <int kCount, int kGroups, int kPairs>
  MVF_DEVICE void multiply_steps(int rows, int first, float (&sums)[kGroups][S::kOwn][2][4]) {
    constexpr int kOneStep = kGroups * kPairs * kFragment;
    stream_.need(kCount * kOneStep);
    const int place = stream_.place();
    Bytes16 a[kCount], b[kCount][kGroups][S::kOwn];
    MVF_UNROLL
    for (int s = 0; s < kCount; ++s) {
      a[s] = load_shared_at<Bytes16>(shared_ + rows + ((first + s) * kWarpSize + lane_) * 16);
      MVF_UNROLL
      for (int i = 0; i < kGroups * S::kOwn; ++i) {
        const int group = i / S::kOwn, own = i % S::kOwn;
        b[s][group][own] =
            stream_.fragment(place + s * kOneStep + (group * kPairs + pair(own, kPairs)) * kFragment, lane_);
      }
    }
    MVF_UNROLL
    for (int s = 0; s < kCount; ++s) {
      MVF_UNROLL
      for (int i = 0; i < kGroups * S::kOwn * 2; ++i) {
        const int group = i / 2 / S::kOwn, own = i / 2 % S::kOwn, tile = i % 2;
        const Bytes16& w = b[s][group][own];
        multiply_half(sums[group][own][tile], a[s].word, w.word[2 * tile], w.word[2 * tile + 1]);
      }
    }
    stream_.advance(kCount * kOneStep, lane_, warp_);
  }

  // The warp's columns of x, as sums of a product.
  using Residual = float[1][S::kOwn][2][4];

  // A layer whose result is added to x, or x begins with, and the norm of x behind it, as fragments. `bias` and `norm`
  // are vectors.
  template <int kSteps, bool kAdds>
  MVF_DEVICE void add_layer(int rows, int bias, int norm) {
    Residual x = {};
    Float2 factor[S::kOwn][2] = {}, shift[S::kOwn][2] = {};
    if (warp_ < S::kColumnWarps) {
      Float2 added[S::kOwn][2];
      MVF_UNROLL
      for (int i = 0; i < S::kOwn * 2; ++i) {
        added[i / 2][i % 2] = vector_at(bias, pair(i / 2), i % 2);
        factor[i / 2][i % 2] = vector_at(norm, pair(i / 2), i % 2);
        shift[i / 2][i % 2] = vector_at(norm + 1, pair(i / 2), i % 2);
      }
      multiply<1, kSteps, S::kPairs>(rows, x);
      MVF_UNROLL
      for (int i = 0; i < S::kOwn * 2; ++i) {
        float (&v)[4] = x[0][i / 2][i % 2];
        const Float2 b = added[i / 2][i % 2];
        v[0] += b.x, v[1] += b.y, v[2] += b.x, v[3] += b.y;
        if (kAdds) add_bits(v, load_shared_at<Bytes16>(x_at(i)));
        if (has(i / 2)) store_shared_at(x_at(i), bits_of(v));
      }
      MVF_UNROLL
      for (int half = 0; half < 2; ++half) store_statistics(x, half);
    }
    sync_block();
    if (warp_ < S::kColumnWarps) {
      float mean[2], inverse[2];
      MVF_UNROLL
      for (int half = 0; half < 2; ++half) join_statistics(half, mean[half], inverse[half]);
      MVF_UNROLL
      for (int own = 0; own < S::kOwn; ++own) {
        Bytes16 w;
        MVF_UNROLL
        for (int e = 0; e < 4; ++e) {
          const int half = e % 2;
          const float* v = x[0][own][e / 2] + 2 * half;
          const Float2 f = factor[own][e / 2], s = shift[own][e / 2];
          w.word[e] = pack<Half>((v[0] - mean[half]) * inverse[half] * f.x + s.x,
                                 (v[1] - mean[half]) * inverse[half] * f.y + s.y);
        }
        if (has(own)) store_shared_at(shared_ + S::kAtNormed + (pair(own) * kWarpSize + lane_) * 16, w);
      }
    }
    sync_block();
  }
  // Where a tile of the lane's x lies until something is added to it.
  MVF_DEVICE uint32_t x_at(int i) const {
    return shared_ + S::kAtX + ((pair(i / 2) * 2 + i % 2) * kWarpSize + lane_) * 16;
  }

  // Columns of x that a warp has, a number or its reciprocal; the last one may have fewer.
  static constexpr int kAll = S::kOwn * 16, kLastWarp = (S::kD - 1) / kAll, kRest = S::kD - kLastWarp * kAll;
  static MVF_DEVICE float columns_of(int warp) { return warp == kLastWarp ? 1.0f * kRest : 1.0f * kAll; }
  static MVF_DEVICE float over_columns(int warp) { return warp == kLastWarp ? 1.0f / kRest : 1.0f / kAll; }
  // Whether the warp's tile number i has columns of x.
  MVF_DEVICE bool there(int i) const {
    return S::kOwn * S::kColumnWarps * 16 == S::kD || (warp_ * S::kOwn + i / 2) * 16 + i % 2 * 8 < S::kD;
  }
  static MVF_DEVICE float sum_of_quad(float v) {
    v += shuffle_xor(v, 1);
    return v + shuffle_xor(v, 2);
  }
  MVF_DEVICE uint32_t statistics(int half, int warp) const {
    return shared_ + S::kAtStats + ((half * 8 + lane_ / 4) * S::kColumnWarps + warp) * 8;
  }
  // Mean, and squares of what is off it, of one of the lane's rows in the warp's columns. Those of all columns are
  // joined from them, so that a mean far from zero costs no digits.
  MVF_DEVICE void store_statistics(const Residual& x, int half) const {
    float sum = 0.0f, squares = 0.0f;
    MVF_UNROLL
    for (int i = 0; i < S::kOwn * 2; ++i) {
      const float* v = x[0][i / 2][i % 2] + 2 * half;
      sum += there(i) ? v[0] + v[1] : 0.0f;
    }
    const float mean = sum_of_quad(sum) * over_columns(warp_);
    MVF_UNROLL
    for (int i = 0; i < S::kOwn * 2; ++i) {
      const float* v = x[0][i / 2][i % 2] + 2 * half;
      squares += there(i) ? (v[0] - mean) * (v[0] - mean) + (v[1] - mean) * (v[1] - mean) : 0.0f;
    }
    squares = sum_of_quad(squares);
    if (lane_ % 4 == 0) store_shared_at(statistics(half, warp_), Float2{mean, squares});
  }
  // Mean and 1 / standard deviation of one of the lane's rows, of which every lane of four joins some warps' columns.
  MVF_DEVICE void join_statistics(int half, float& mean, float& inverse) const {
    constexpr int kTurns = ceil_div(S::kColumnWarps, 4);
    Float2 part[kTurns];
    float sum = 0.0f, squares = 0.0f;
    MVF_UNROLL
    for (int i = 0; i < kTurns; ++i) {
      const int warp = i * 4 + lane_ % 4, last = S::kColumnWarps - 1;
      part[i] = load_shared_at<Float2>(statistics(half, warp < last ? warp : last));
      sum += warp <= last ? part[i].x * columns_of(warp) : 0.0f;
    }
    mean = sum_of_quad(sum) * (1.0f / S::kD);
    MVF_UNROLL
    for (int i = 0; i < kTurns; ++i) {
      const float off = part[i].x - mean;
      const int warp = i * 4 + lane_ % 4;
      squares += warp < S::kColumnWarps ? part[i].y + off * off * columns_of(warp) : 0.0f;
    }
    inverse = reciprocal_root(sum_of_quad(squares) * (1.0f / S::kD) + p_.eps);
  }

  MVF_DEVICE Bytes16* exchanged(int layer) const {
    const int64_t place = (int64_t{1} * sequence() * S::kLayers + layer) * S::kCluster;
    return p_.exchanged + place * (kTileBytes / 16);
  }

  // Query to shared memory, key and value, this one transposed, to global memory.
  MVF_DEVICE void project_heads(int bias, int layer) {
    if (warp_ >= S::kColumnWarps) return;
    float sums[3][S::kOwn][2][4] = {};
    Float2 added[3][S::kOwn][2];
    MVF_UNROLL
    for (int i = 0; i < 3 * S::kOwn * 2; ++i) {
      const int kind = i / 2 / S::kOwn, own = i / 2 % S::kOwn;
      added[kind][own][i % 2] = vector_at(bias + kind, pair(own), i % 2);
    }
    multiply<3, S::kPairs, S::kPairs>(S::kAtNormed, sums);
    Bytes16* mine = exchanged(layer) + tile() * (kTileBytes / 16);
    MVF_UNROLL
    for (int i = 0; i < 3 * S::kOwn; ++i) {
      const int kind = i / S::kOwn, own = i % S::kOwn;
      Bytes16 w;
      MVF_UNROLL
      for (int e = 0; e < 4; ++e) {
        const float* v = sums[kind][own][e / 2] + e % 2 * 2;
        const Float2 b = added[kind][own][e / 2];
        w.word[e] = pack<Half>(v[0] + b.x, v[1] + b.y);
        if (kind == 2) w.word[e] = transpose_matrix(w.word[e]);
      }
      const int place = pair(own) * kWarpSize + lane_;
      if (!has(own)) continue;
      if (kind == 0) {
        store_shared_at(shared_ + S::kAtQuery + place * 16, w);
      } else {
        store_global(mine + (kind - 1) * (S::kRowsBytes / 16) + place, w);
      }
    }
  }

  MVF_DEVICE void attend(int layer) const { attend_head<S>(shared_, exchanged(layer), warp_, lane_, p_.score_scale); }

  // The first layer of the MLP.
  MVF_DEVICE void widen(int bias) {
    if (warp_ >= S::kColumnWarps) return;
    float sums[2][S::kOwn][2][4] = {};
    Float2 added[2][S::kOwn][2];
    MVF_UNROLL
    for (int i = 0; i < 2 * S::kOwn * 2; ++i) {
      const int group = i / 2 / S::kOwn, own = i / 2 % S::kOwn;
      added[group][own][i % 2] = vector_at(bias + group, pair(own), i % 2);
    }
    multiply<2, S::kPairs, S::kPairs>(S::kAtNormed, sums);
    MVF_UNROLL
    for (int i = 0; i < 2 * S::kOwn; ++i) {
      const int group = i / S::kOwn, own = i % S::kOwn;
      if (!has(own)) continue;
      Bytes16 w;
      MVF_UNROLL
      for (int e = 0; e < 4; ++e) {
        const float* v = sums[group][own][e / 2] + e % 2 * 2;
        const Float2 b = added[group][own][e / 2];
        w.word[e] = pack<Half>(silu(v[0] + b.x), silu(v[1] + b.y));
      }
      store_shared_at(shared_ + S::kAtHidden + ((group * S::kPairs + pair(own)) * kWarpSize + lane_) * 16, w);
    }
  }

  // The convolution out.
  MVF_DEVICE void store_outputs(int scale) {
    if (warp_ >= S::kColumnWarps) return;
    float sums[1][S::kOwn][2][4] = {};
    Float2 factor[S::kOwn][2], shift[S::kOwn][2];
    MVF_UNROLL
    for (int i = 0; i < S::kOwn * 2; ++i) {
      factor[i / 2][i % 2] = vector_at(scale, pair(i / 2, S::kOutPairs), i % 2);
      shift[i / 2][i % 2] = vector_at(scale + 1, pair(i / 2, S::kOutPairs), i % 2);
    }
    multiply<1, S::kPairs, S::kOutPairs>(S::kAtNormed, sums);
    MVF_UNROLL
    for (int half = 0; half < 2; ++half) {
      Half* y = p_.y + pixel(lane_ / 4 + 8 * half) * S::kChannels + lane_ % 4 * 2;
      MVF_UNROLL
      for (int i = 0; i < S::kOwn * 2; ++i) {
        if (!has(i / 2, S::kOutPairs)) continue;
        const float* v = sums[0][i / 2][i % 2] + 2 * half;
        const Float2 f = factor[i / 2][i % 2], s = shift[i / 2][i % 2];
        store_global(words(y + pair(i / 2) * 16 + i % 2 * 8),
                     pack<Half>(silu(v[0] * f.x + s.x), silu(v[1] * f.y + s.y)));
      }
    }
  }

  const Params& p_;
  const uint32_t shared_;
  WeightStream<S> stream_;
  int lane_, warp_;
};

}  // namespace mobilevit_fast::cuda::few
