// Attention of 16 queries over keys and values in global memory. Heads lie side by side, whatever their width: a warp
// looks at the steps of 16 columns that its head has a part in, and makes zeros of the query's other columns.
#pragma once

#include "small_tokens_shapes_sm90.h"

namespace mobilevit_fast::cuda::few {

// A warp has a head and one of the parts of its keys; keys and values lie as [16 keys][key, value][step][32] times 16
// bytes. The context replaces the normed tokens. All warps of the block call it.
template <class S>
MVF_DEVICE void attend_head(uint32_t shared, const Bytes16* exchanged, int warp, int lane, float scale) {
  constexpr int kSteps = S::kHeadSteps, kTile = 2 * S::kRowsBytes / 16, kGroup = 8 / kSteps > 1 ? 8 / kSteps : 1;
  constexpr int kTiles = S::kKeys / 16;  // of keys
  const int head = warp % S::kHeads, part = warp / S::kHeads, begin = head * S::kHeadDim, end = begin + S::kHeadDim;
  const int first_step = begin / 16, member = lane % 4;
  const auto step_at = [&](int k) { return first_step + k < S::kPairs ? first_step + k : S::kPairs - 1; };
  const auto own = [&](int step, int half) {  // whether the lane's two columns of a step are the head's
    const int column = step * 16 + half * 8 + member * 2;
    return column >= begin && column < end;
  };
  float out[kSteps * 2][4] = {}, most[2] = {}, sum[2] = {};
  if (S::kAllWarps == S::kAttendWarps || part < S::kKeyParts) {
    const Bytes16* keys = exchanged + part * kTiles * kTile + lane;
    const Bytes16* values = keys + S::kRowsBytes / 16;
    uint32_t q[kSteps][4];
    MVF_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      const Bytes16 f = load_shared_at<Bytes16>(shared + S::kAtQuery + (step_at(k) * kWarpSize + lane) * 16);
      MVF_UNROLL
      for (int e = 0; e < 4; ++e) q[k][e] = own(first_step + k, e / 2) ? f.word[e] : 0u;
    }
    float s[kTiles * 2][4] = {};
    MVF_UNROLL
    for (int n0 = 0; n0 < kTiles; n0 += kGroup) {
      Bytes16 b[kGroup][kSteps];
      MVF_UNROLL
      for (int n = 0; n < kGroup && n0 + n < kTiles; ++n) {
        MVF_UNROLL
        for (int k = 0; k < kSteps; ++k) b[n][k] = load_result(keys + (n0 + n) * kTile + step_at(k) * kWarpSize);
      }
      MVF_UNROLL
      for (int n = 0; n < kGroup && n0 + n < kTiles; ++n) {
        MVF_UNROLL
        for (int k = 0; k < kSteps; ++k) {
          multiply_half(s[2 * (n0 + n)], q[k], b[n][k].word[0], b[n][k].word[2]);
          multiply_half(s[2 * (n0 + n) + 1], q[k], b[n][k].word[1], b[n][k].word[3]);
        }
      }
    }
    // The largest score is subtracted before anything is rounded: no exponent is positive, however large scores are.
    most[0] = s[0][0], most[1] = s[0][2];
    MVF_UNROLL
    for (int n = 0; n < kTiles * 2; ++n) {
      most[0] = maximum(most[0], maximum(s[n][0], s[n][1])), most[1] = maximum(most[1], maximum(s[n][2], s[n][3]));
    }
    MVF_UNROLL
    for (int m = 1; m < 4; m *= 2) {
      most[0] = maximum(most[0], shuffle_xor(most[0], m)), most[1] = maximum(most[1], shuffle_xor(most[1], m));
    }
    uint32_t p[kTiles][4];
    MVF_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      MVF_UNROLL
      for (int e = 0; e < 4; ++e) {  // rows, then rows 8 on, of eight keys and of the next eight
        const float* v = s[2 * n + e / 2] + e % 2 * 2;
        const float u0 = exp2_approximate((v[0] - most[e % 2]) * scale);
        const float u1 = exp2_approximate((v[1] - most[e % 2]) * scale);
        p[n][e] = pack<Half>(u0, u1), sum[e % 2] += u0 + u1;
      }
    }
    MVF_UNROLL
    for (int m = 1; m < 4; m *= 2) sum[0] += shuffle_xor(sum[0], m), sum[1] += shuffle_xor(sum[1], m);
    MVF_UNROLL
    for (int n0 = 0; n0 < kTiles; n0 += kGroup) {
      Bytes16 b[kGroup][kSteps];
      MVF_UNROLL
      for (int n = 0; n < kGroup && n0 + n < kTiles; ++n) {
        MVF_UNROLL
        for (int k = 0; k < kSteps; ++k) b[n][k] = load_result(values + (n0 + n) * kTile + step_at(k) * kWarpSize);
      }
      MVF_UNROLL
      for (int n = 0; n < kGroup && n0 + n < kTiles; ++n) {
        MVF_UNROLL
        for (int k = 0; k < kSteps; ++k) {
          multiply_half(out[2 * k], p[n0 + n], b[n][k].word[0], b[n][k].word[1]);
          multiply_half(out[2 * k + 1], p[n0 + n], b[n][k].word[2], b[n][k].word[3]);
        }
      }
    }
  }
  if constexpr (S::kKeyParts > 1) {  // the others hand over what they have to the warp of the first keys
    const auto place = [&](int from, int number) {
      const int row = (from - 1) * S::kHeads + head;
      return shared + S::kAtHidden + ((row * S::kHandedNumbers + number) * kWarpSize + lane) * 4;
    };
    if (part > 0 && part < S::kKeyParts) {
      MVF_UNROLL
      for (int e = 0; e < 2; ++e) store_shared_at(place(part, e), most[e]), store_shared_at(place(part, 2 + e), sum[e]);
      MVF_UNROLL
      for (int i = 0; i < kSteps * 8; ++i) store_shared_at(place(part, 4 + i), out[i / 4][i % 4]);
    }
    sync_block();
    if (part == 0) {
      MVF_NO_UNROLL
      for (int from = 1; from < S::kKeyParts; ++from) {
        MVF_UNROLL
        for (int e = 0; e < 2; ++e) {
          const float other = load_shared_at<float>(place(from, e)), both = maximum(most[e], other);
          const float mine = exp2_approximate((most[e] - both) * scale);
          const float theirs = exp2_approximate((other - both) * scale);
          most[e] = both, sum[e] = sum[e] * mine + load_shared_at<float>(place(from, 2 + e)) * theirs;
          MVF_UNROLL
          for (int c = 0; c < kSteps * 2; ++c) {
            MVF_UNROLL
            for (int i = 2 * e; i < 2 * e + 2; ++i) {
              out[c][i] = out[c][i] * mine + load_shared_at<float>(place(from, 4 + c * 4 + i)) * theirs;
            }
          }
        }
      }
    }
  }
  if (part > 0) return;
  const float inverse[2] = {reciprocal_approximate(sum[0]), reciprocal_approximate(sum[1])};
  MVF_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    MVF_UNROLL
    for (int e = 0; e < 4; ++e) {
      if (!own(first_step + k, e / 2)) continue;
      const float* v = out[2 * k + e / 2] + e % 2 * 2;
      store_shared_at(shared + S::kAtNormed + ((first_step + k) * kWarpSize + lane) * 16 + e * 4,
                      pack<Half>(v[0] * inverse[e % 2], v[1] * inverse[e % 2]));
    }
  }
}

}  // namespace mobilevit_fast::cuda::few
