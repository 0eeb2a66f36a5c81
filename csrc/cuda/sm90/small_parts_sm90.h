// What the kernels for few images share: bits of numbers, and products that the warps of a block share out.
//
// With few images a kernel takes as long as its blocks wait: for weights, for one another, for the kernel before. So a
// layer is cut into about as many blocks as the chip has processors, a block's weights come in one bulk copy that it
// starts before the kernel before it has ended, and warps share out the depth of products where rows and columns are
// few.
#pragma once

#include <cstring>

#include "cuda/mma/fragments.h"
#include "device_sm90.h"

namespace mobilevit_fast::cuda::few {

// Shapes that there are kernels for.
template <class... Shapes>
struct List {};

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr int kMaxShared = 227 << 10;

// Bytes that 16 of a lane's elements or 8 outputs' weights over 32 inputs take, of a warp.
constexpr int kFragment = kWarpSize * static_cast<int>(sizeof(Bytes16));

// Elements from row to row where eight rows of 16 bytes lie in different banks.
MVF_HOST_DEVICE constexpr int odd_pitch(int width) { return width / kPieceNumbers % 2 ? width : width + kPieceNumbers; }

MVF_DEVICE uint32_t word_of(float v) {
  uint32_t word;
  std::memcpy(&word, &v, sizeof word);
  return word;
}
MVF_DEVICE Bytes16 bits_of(const float (&v)[4]) {
  Bytes16 bits;
  std::memcpy(&bits, v, sizeof bits);
  return bits;
}
MVF_DEVICE void add_bits(float (&v)[4], Bytes16 bits) {
  float other[4];
  std::memcpy(other, &bits, sizeof bits);
  MVF_UNROLL
  for (int e = 0; e < 4; ++e) v[e] += other[e];
}

// d += a · b, fragments of elements T.
template <class T>
MVF_DEVICE void multiply_words(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  multiply_matrix<T>(d, a, b);
}

// Warps that share out the columns, the depth and the rows of a product.
template <int kWide_, int kDeep_, int kHigh_ = 1>
struct Split {
  static constexpr int kWide = kWide_, kDeep = kDeep_, kHigh = kHigh_;
};

constexpr int kReduceBytes = 20480;  // for the accumulators of warps that share out depth

// use(tile, row tile, sums) for the first `tiles` tiles of 8 columns, all row tiles of 16 rows. Rows lie at `rows`,
// `pitch` elements apart; weights as fragments of two steps of 16 inputs: [kTiles][kSteps / 2][32] times 16 bytes. All
// threads of the block call it; kWide * kDeep * kHigh warps work.
template <class T, int kAllRowTiles, int kTiles, int kSteps, class Split, class Use>
MVF_DEVICE void multiply_rows(uint32_t rows, int pitch, uint32_t weights, uint32_t reduce, int tiles, const Use& use) {
  constexpr int kWide = Split::kWide, kDeep = Split::kDeep, kHigh = Split::kHigh, kRowTiles = kAllRowTiles / kHigh;
  static_assert(kWide * kDeep * kHigh <= kWarps && kAllRowTiles % kHigh == 0 && (kDeep == 1 || kHigh == 1));
  const int lane = thread_index() % kWarpSize, warp = thread_index() / kWarpSize, wide = warp % kWide;
  const int high = kHigh > 1 ? warp / kWide % kHigh : 0, deep = warp / (kWide * kHigh);
  constexpr int kOwn = ceil_div(kTiles, kWide), kPairs = ceil_div(kSteps, 2), kOwnPairs = ceil_div(kPairs, kDeep);
  constexpr int kItems = kOwn * kRowTiles;
  constexpr int kSets = kItems >= 4 ? 1 : kItems >= 2 ? 2 : 4;  // of accumulators, so that MACs need not wait
  float sums[kSets][kOwn][kRowTiles][4] = {};
  if (deep < kDeep && wide < tiles) {
    const uint32_t row = rows + ((high * kRowTiles * 16 + lane % 16) * pitch + lane / 16 * 8) * 2;
    MVF_UNROLL
    for (int i = 0; i < kOwnPairs; ++i) {
      const int pair = deep * kOwnPairs + i;
      if (kDeep * kOwnPairs != kPairs && pair >= kPairs) break;
      const bool both = kSteps % 2 == 0 || pair != kPairs - 1;
      uint32_t f[2][kRowTiles][4];
      Bytes16 b[kOwn];
      MVF_UNROLL
      for (int j = 0; j < kOwn; ++j) {
        if (kTiles % kWide == 0 || wide + j * kWide < kTiles) {
          b[j] = load_shared_at<Bytes16>(weights + ((wide + j * kWide) * kPairs + pair) * kFragment + lane * 16);
        }
      }
      MVF_UNROLL
      for (int r = 0; r < kRowTiles; ++r) {
        load_matrix_at(f[0][r], row + (r * 16 * pitch + pair * 32) * 2);
        if (both) load_matrix_at(f[1][r], row + (r * 16 * pitch + pair * 32 + 16) * 2);
      }
      MVF_UNROLL
      for (int j = 0; j < kOwn; ++j) {
        if (kTiles % kWide != 0 && wide + j * kWide >= kTiles) continue;
        MVF_UNROLL
        for (int r = 0; r < kRowTiles; ++r) {
          multiply_words<T>(sums[2 * i % kSets][j][r], f[0][r], b[j].word[0], b[j].word[1]);
        }
        if (!both) continue;
        MVF_UNROLL
        for (int r = 0; r < kRowTiles; ++r) {
          multiply_words<T>(sums[(2 * i + 1) % kSets][j][r], f[1][r], b[j].word[2], b[j].word[3]);
        }
      }
    }
    MVF_UNROLL
    for (int s = 1; s < kSets; ++s) {
      MVF_UNROLL
      for (int i = 0; i < kItems * 4; ++i) {
        sums[0][i / 4 / kRowTiles][i / 4 % kRowTiles][i % 4] += sums[s][i / 4 / kRowTiles][i / 4 % kRowTiles][i % 4];
      }
    }
  }
  const auto place = [&](int d, int item) {
    return reduce + ((d * kWide + wide) * kItems + item) * kFragment + lane * 16;
  };
  if constexpr (kDeep > 1) {
    static_assert(kDeep * kWide * kItems * kFragment <= kReduceBytes);
    MVF_UNROLL
    for (int i = 0; i < kItems; ++i) {
      if (deep < kDeep && i % kDeep != deep)
        store_shared_at(place(deep, i), bits_of(sums[0][i / kRowTiles][i % kRowTiles]));
    }
    sync_block();
  }
  if (deep >= kDeep) return;
  MVF_UNROLL
  for (int i = 0; i < kItems; ++i) {
    const int tile = wide + i / kRowTiles * kWide;
    if ((kDeep > 1 && i % kDeep != deep) || tile >= tiles) continue;
    float (&v)[4] = sums[0][i / kRowTiles][i % kRowTiles];
    if constexpr (kDeep > 1) {
      MVF_UNROLL
      for (int d = 0; d < kDeep; ++d) {
        if (d != deep) add_bits(v, load_shared_at<Bytes16>(place(d, i)));
      }
    }
    use(tile, high * kRowTiles + i % kRowTiles, v);
  }
}

}  // namespace mobilevit_fast::cuda::few
