// What the blocks of a transformer stack do: products, norms and attention, on fragments of the matrix unit in shared
// memory. A fragment is 16 rows by 16 columns, of which a lane has 16 bytes.
#pragma once

#include "small_stack_shapes_sm90.h"

namespace mobilevit_fast::cuda::few {

// Two neighbouring tiles of columns, the first an even one, of a row tile at `to`, to the blocks first + i * stride for
// i = part, part + parts, .. < count. The words of two neighbouring tiles are a fragment's 16 bytes of a lane, so that
// a warp stores 512 bytes behind one another. It costs about a cycle a lane and block.
MVF_DEVICE void send(const Bytes8 (&w)[2], uint32_t to, int tile, uint32_t barrier, int first, int count, int stride,
                     int part, int parts) {
  const uint32_t at = to + tile / 2 * kFragment + thread_index() % kWarpSize * 16;
  const Bytes16 both{{w[0].word[0], w[0].word[1], w[1].word[0], w[1].word[1]}};
  MVF_NO_UNROLL
  for (int i = part; i < count; i += parts) {
    const int rank = first + i * stride;
    store_async(remote_address(at, rank), both, remote_address(barrier, rank));
  }
}

// kWide * kDeep * kHigh warps multiply; rows(row tile, step, fragment) gives inputs. value(tile, row tile, sums,
// bias(tile)) makes two words of a tile's accumulators, put(tile, row tile, words, part, parts) takes those of two
// neighbouring tiles; where warps share out depth, several may take the same tiles, each its part of what is done with
// them.
template <class T, int kAllRowTiles, int kTiles, int kSteps, class Split, int kRoom, class Rows, class Bias,
          class Value, class Put>
MVF_DEVICE void multiply_fragments(const Rows& rows, uint32_t weights, uint32_t reduce, int tiles, const Bias& bias,
                                   const Value& value, const Put& put) {
  constexpr int kWide = Split::kWide, kDeep = Split::kDeep, kHigh = Split::kHigh, kRowTiles = kAllRowTiles / kHigh;
  constexpr int kOwn = kTiles / kWide, kOwnSteps = ceil_div(kSteps, kDeep), kItems = kOwn / 2 * kRowTiles;
  static_assert(kAllRowTiles % kHigh == 0 && kTiles % (2 * kWide) == 0 && (kDeep == 1 || kHigh == 1));
  static_assert(kDeep == 1 || kDeep * kTiles * kRowTiles * kFragment <= kRoom);
  const int lane = thread_index() % kWarpSize, warp = thread_index() / kWarpSize, first = warp % kWide * kOwn;
  const int high = kHigh > 1 ? warp / kWide % kHigh : 0, deep = warp / (kWide * kHigh);
  float sums[kOwn][kRowTiles][4] = {};
  if (deep < kDeep && first < tiles) {
    MVF_UNROLL
    for (int i = 0; i < kOwnSteps; ++i) {
      const int step = deep + i * kDeep;
      if (kSteps % kDeep && step >= kSteps) continue;
      uint32_t f[kRowTiles][4];
      MVF_UNROLL
      for (int r = 0; r < kRowTiles; ++r) rows(high * kRowTiles + r, step, f[r]);
      MVF_UNROLL
      for (int j = 0; j < kOwn; j += 2) {
        const Bytes16 b = load_shared_at<Bytes16>(weights + ((step * kTiles + first + j) / 2 * kWarpSize + lane) * 16);
        MVF_UNROLL
        for (int r = 0; r < kRowTiles; ++r) multiply_words<T>(sums[j][r], f[r], b.word[0], b.word[1]);
        MVF_UNROLL
        for (int r = 0; r < kRowTiles; ++r) multiply_words<T>(sums[j + 1][r], f[r], b.word[2], b.word[3]);
      }
    }
  }
  if constexpr (kDeep == 1) {
    if (deep >= 1) return;
    MVF_UNROLL
    for (int r = 0; r < kRowTiles; ++r) {
      MVF_UNROLL
      for (int j = 0; j < kOwn; j += 2) {
        if (first + j >= tiles) continue;
        const int row_tile = high * kRowTiles + r;
        const Bytes8 w[2] = {value(first + j, row_tile, sums[j][r], bias(first + j)),
                             value(first + j + 1, row_tile, sums[j + 1][r], bias(first + j + 1))};
        put(first + j, row_tile, w, 0, 1);
      }
    }
  } else {
    const auto place = [&](int d, int r, int tile) {
      return reduce + ((d * kRowTiles + r) * kTiles + tile) * kFragment + lane * 16;
    };
    if (deep < kDeep) {
      MVF_UNROLL
      for (int j = 0; j < kOwn; ++j) {
        MVF_UNROLL
        for (int r = 0; r < kRowTiles; ++r) store_shared_at(place(deep, r, first + j), bits_of(sums[j][r]));
      }
    }
    // Of the pairs of tiles of the warps with the same columns each has some, or several share one. Nobody waits for
    // those who share, so what they read of the chunk they read before the barrier: the chunk may be gone soon after.
    constexpr int kSharers = kItems < kDeep ? kDeep / kItems : 1;
    const int shared_tile = first + deep % kItems / kRowTiles * 2;
    Float2 biases[2] = {};
    if (kSharers > 1) biases[0] = bias(shared_tile), biases[1] = bias(shared_tile + 1);
    sync_block();
    if (deep >= kDeep || (kSharers > 1 && deep / kItems >= kSharers)) return;
    MVF_NO_UNROLL
    for (int item = kSharers > 1 ? deep % kItems : deep; item < kItems; item += kDeep) {
      const int r = item % kRowTiles, tile = first + item / kRowTiles * 2;
      if (tile >= tiles) continue;
      Bytes8 w[2];
      MVF_UNROLL
      for (int e = 0; e < 2; ++e) {
        float v[4] = {};
        MVF_UNROLL
        for (int d = 0; d < kDeep; ++d) add_bits(v, load_shared_at<Bytes16>(place(d, r, tile + e)));
        w[e] = value(tile + e, r, v, kSharers > 1 ? biases[e] : bias(tile + e));
      }
      put(tile, r, w, kSharers > 1 ? deep / kItems : 0, kSharers);
    }
  }
}

// Fragments of x with mean 0 and variance 1, times a scale, plus a shift that lies behind it. wait() is called before x
// is read. Sums are of what is left when a row's first element is subtracted, so that a mean far from zero costs no
// digits of the variance.
template <class T, class S, class Wait>
MVF_DEVICE void norm(uint32_t x, uint32_t normed, uint32_t stats, uint32_t affine, float eps, const Wait& wait) {
  constexpr int kShare = S::kShare, kSteps = S::kDSteps, kOwn = ceil_div(kSteps, kShare);
  const int lane = thread_index() % kWarpSize, group = lane / 4, member = lane % 4;
  const int warp = thread_index() / kWarpSize, r = warp / kShare, part = warp % kShare;
  Float2 factor[kOwn][2], offset[kOwn][2];
  MVF_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const int step = part + i * kShare < kSteps ? part + i * kShare : kSteps - 1;
    MVF_UNROLL
    for (int half = 0; half < 2; ++half) {
      const uint32_t at = affine + (step * 16 + half * 8 + member * 2) * 4;
      factor[i][half] = load_shared_at<Float2>(at), offset[i][half] = load_shared_at<Float2>(at + S::kPadded * 4);
    }
  }
  wait();
  const Bytes8 begin = load_shared_at<Bytes8>(x + (r * kSteps * kWarpSize + group * 4) * 16);
  const float first[2] = {unpack<T>(begin.word[0]).x, unpack<T>(begin.word[1]).x};  // of rows `group` and 8 on
  Float2 v[kOwn][4];
  float sum[2] = {}, squares[2] = {};
  MVF_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const int step = part + i * kShare;
    if (kSteps % kShare && step >= kSteps) continue;
    const Bytes16 f = load_shared_at<Bytes16>(x + ((r * kSteps + step) * kWarpSize + lane) * 16);
    MVF_UNROLL
    for (int e = 0; e < 4; ++e) {
      const bool there = S::kPadded == S::kD || step * 16 + e / 2 * 8 < S::kD;
      const Float2 two = unpack<T>(f.word[e]);
      v[i][e] = there ? Float2{two.x - first[e % 2], two.y - first[e % 2]} : Float2{0.0f, 0.0f};
      sum[e % 2] += v[i][e].x + v[i][e].y, squares[e % 2] += v[i][e].x * v[i][e].x + v[i][e].y * v[i][e].y;
    }
  }
  MVF_UNROLL
  for (int m = 1; m < 4; m *= 2) {
    MVF_UNROLL
    for (int e = 0; e < 2; ++e) sum[e] += shuffle_xor(sum[e], m), squares[e] += shuffle_xor(squares[e], m);
  }
  if (member < 2) {
    const uint32_t at = stats + ((r * 16 + group + 8 * member) * kShare + part) * 8;
    store_shared_at(at, member == 0 ? Float2{sum[0], squares[0]} : Float2{sum[1], squares[1]});
  }
  sync_block();
  float mean[2], inverse[2];
  MVF_UNROLL
  for (int e = 0; e < 2; ++e) {
    Float2 all{0.0f, 0.0f};
    MVF_UNROLL
    for (int i = 0; i < kShare; ++i) {
      const Float2 other = load_shared_at<Float2>(stats + ((r * 16 + group + 8 * e) * kShare + i) * 8);
      all.x += other.x, all.y += other.y;
    }
    mean[e] = all.x * (1.0f / S::kD);
    inverse[e] = reciprocal_root(maximum(all.y * (1.0f / S::kD) - mean[e] * mean[e], 0.0f) + eps);
  }
  MVF_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const int step = part + i * kShare;
    if (kSteps % kShare && step >= kSteps) continue;
    Bytes16 w;
    MVF_UNROLL
    for (int e = 0; e < 4; ++e) {
      const float m = mean[e % 2], scale = inverse[e % 2];
      w.word[e] = pack<T>((v[i][e].x - m) * scale * factor[i][e / 2].x + offset[i][e / 2].x,
                          (v[i][e].y - m) * scale * factor[i][e / 2].y + offset[i][e / 2].y);
    }
    store_shared_at(normed + ((r * kSteps + step) * kWarpSize + lane) * 16, w);
  }
  sync_block();
}

// 16 queries over kKeys keys by a warp, or the first `keys` of them: for kColumnTiles tiles of the values' columns from
// `tile` on the sums of values times 2^((score - most) * scale), and of the factors. Keys as they were sent are right
// factors of the scores.
template <class T, int kKeys, int kSteps, int kColumnTiles, bool kMasked>
MVF_DEVICE void attend(uint32_t query, uint32_t key, uint32_t value, int tile, int keys, float scale,
                       float (&out)[kColumnTiles][4], float (&most)[2], float (&sum)[2]) {
  constexpr float kNoScore = -3.0e38f;  // its weight is 0, and it is no infinity to subtract from another
  const int lane = thread_index() % kWarpSize;
  float s[kKeys / 8][4] = {};
  MVF_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    const Bytes16 q = load_shared_at<Bytes16>(query + (k * kWarpSize + lane) * 16);
    MVF_UNROLL
    for (int n = 0; n < kKeys / 16; ++n) {
      const Bytes16 b = load_shared_at<Bytes16>(key + ((n * kSteps + k) * kWarpSize + lane) * 16);
      multiply_words<T>(s[2 * n], q.word, b.word[0], b.word[2]);
      multiply_words<T>(s[2 * n + 1], q.word, b.word[1], b.word[3]);
    }
  }
  if constexpr (kMasked) {
    MVF_UNROLL
    for (int i = 0; i < kKeys / 2; ++i) {
      if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= keys) s[i / 4][i % 4] = kNoScore;
    }
  }
  most[0] = s[0][0], most[1] = s[0][2], sum[0] = sum[1] = 0.0f;
  MVF_UNROLL
  for (int n = 0; n < kKeys / 8; ++n) {
    most[0] = maximum(most[0], maximum(s[n][0], s[n][1])), most[1] = maximum(most[1], maximum(s[n][2], s[n][3]));
  }
  MVF_UNROLL
  for (int m = 1; m < 4; m *= 2) {
    most[0] = maximum(most[0], shuffle_xor(most[0], m)), most[1] = maximum(most[1], shuffle_xor(most[1], m));
  }
  // The largest score is subtracted before anything is rounded: no exponent is positive, however large scores are.
  MVF_UNROLL
  for (int n = 0; n < kKeys / 8; ++n) {
    MVF_UNROLL
    for (int e = 0; e < 4; ++e) {
      s[n][e] = exp2_approximate((s[n][e] - most[e / 2]) * scale), sum[e / 2] += s[n][e];
    }
  }
  MVF_UNROLL
  for (int m = 1; m < 4; m *= 2) sum[0] += shuffle_xor(sum[0], m), sum[1] += shuffle_xor(sum[1], m);
  MVF_UNROLL
  for (int i = 0; i < kColumnTiles * 4; ++i) out[i / 4][i % 4] = 0.0f;
  MVF_UNROLL
  for (int k = 0; k < kKeys / 16; ++k) {
    const uint32_t p[4] = {pack<T>(s[2 * k][0], s[2 * k][1]), pack<T>(s[2 * k][2], s[2 * k][3]),
                           pack<T>(s[2 * k + 1][0], s[2 * k + 1][1]), pack<T>(s[2 * k + 1][2], s[2 * k + 1][3])};
    MVF_UNROLL
    for (int c = 0; c < kColumnTiles; c += 2) {
      const Bytes16 b = load_shared_at<Bytes16>(value + (k * kSteps + (tile + c) / 2) * kFragment + lane * 16);
      multiply_words<T>(out[c], p, b.word[0], b.word[1]);
      multiply_words<T>(out[c + 1], p, b.word[2], b.word[3]);
    }
  }
}

}  // namespace mobilevit_fast::cuda::few
