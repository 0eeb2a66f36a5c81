// How the kernel for few images divides a transformer stack, where a block keeps what, and when its weights come.
#pragma once

#include "small_parts_sm90.h"
#include "small_stack_sm90.h"

namespace mobilevit_fast::cuda::few {

// Splits of the products of a stack: the convolution in; query, key and value; the projection; both layers of the MLP;
// the convolution out.
template <class In_, class Qkv_, class Proj_, class Fc1_, class Fc2_, class Out_>
struct StackSplits {
  using In = In_;
  using Qkv = Qkv_;
  using Proj = Proj_;
  using Fc1 = Fc1_;
  using Fc2 = Fc2_;
  using Out = Out_;
};

// kGroups blocks share out a sequence's kTokens, kSlices of them the columns of every layer. kReduce is the bytes of
// the accumulators of warps that share out depth, kAttendTiles the tiles of context that a warp has.
template <int kD_, int kLayers_, int kTokens_, int kGroups_, int kSlices_, int kChannels_, int kWarps_, int kReduce_,
          int kAttendTiles_, class Splits>
struct StackShape : Splits {
  static constexpr int kD = kD_, kLayers = kLayers_, kHeads = 4, kTokens = kTokens_, kChannels = kChannels_;
  static constexpr int kGroups = kGroups_, kSlices = kSlices_, kAllWarps = kWarps_, kReduce = kReduce_;
  static constexpr int kAttendTiles = kAttendTiles_, kCluster = kGroups * kSlices, kHidden = 2 * kD;
  static constexpr int kRows = kTokens / kGroups, kRowTiles = kRows / 16;
  static constexpr bool kMasked = false;
  static MVF_HOST_DEVICE constexpr int pairs_of_tiles(int columns) {
    return ceil_div(columns, 16) * 2;
  }  // tiles of 8, an even number
  // Columns of a head are shared out to kPerHead blocks; each block's are padded to whole pairs of tiles.
  static constexpr int kHeadDim = kD / kHeads, kPerHead = kSlices > kHeads ? kSlices / kHeads : 1;
  static constexpr int kHeadTiles = pairs_of_tiles(ceil_div(kHeadDim, kPerHead));
  static constexpr int kHeadWidth = kHeadTiles * kPerHead * 8, kHeadSteps = kHeadWidth / 16;
  static constexpr int kContext = kHeads * kHeadWidth;
  static constexpr int kPadded = pairs_of_tiles(kD) * 8, kDSteps = kPadded / 16;  // columns of x, zero beyond kD
  static constexpr int kTiles = pairs_of_tiles(ceil_div(kD, kSlices));            // of a block, of x
  static constexpr int kHiddenTiles = pairs_of_tiles(ceil_div(kHidden, kSlices)), kQkvTiles = 3 * kHeadTiles;
  static constexpr int kOutTiles = pairs_of_tiles(ceil_div(kChannels, kSlices));
  static constexpr int kShare = kAllWarps / kRowTiles;  // warps of a row tile, where it is normed
  static_assert(kSlices >= kHeads && kD % 8 == 0 && kTokens % (16 * kGroups) == 0 && kAllWarps % kRowTiles == 0);
  static_assert(kChannels % 16 == 0 && kChannels <= kHidden);

  // Shared memory: rows of tokens as fragments, in steps of 16 columns. Where there are many keys, two warps share them
  // and add up where normed tokens were; hidden units lie where keys and values were.
  static MVF_HOST_DEVICE constexpr int fragments(int rows, int columns) {
    return rows / 16 * ceil_div(columns, 16) * kFragment;
  }
  static constexpr bool kManyKeys = kTokens > 64;
  static constexpr int kOwnBytes = kReduce ? kTiles * kRowTiles * 256 : 0;
  static constexpr int kAtX = 0, kAtNormed = kAtX + fragments(kRows, kD), kAtContext = kAtNormed + fragments(kRows, kD);
  static constexpr int kAtQuery = kAtContext + fragments(kRows, kContext);
  static constexpr int kAtKey = kAtQuery + fragments(kRows, kHeadWidth);
  static constexpr int kAtValue = kAtKey + fragments(kTokens, kHeadWidth);
  static constexpr int kAfterValue = kAtValue + fragments(kTokens, kHeadWidth);
  static constexpr int kAtHidden = kManyKeys ? kAtKey : kAfterValue;
  static constexpr int kAtStats = kManyKeys ? kAfterValue : kAtHidden + fragments(kRows, kHidden);
  static_assert(!kManyKeys || kAtHidden + fragments(kRows, kHidden) <= kAfterValue);
  // Where several warps add up the same tiles, a block has its own columns of x twice, one to read, one to write; and
  // the accumulators as well, since a slow warp may still add up what the layer before left.
  static constexpr int kAtOwn = kAtStats + kRows * kShare * 8, kAtReduce = kAtOwn + 2 * kOwnBytes;
  static constexpr int kAtBarriers = kAtReduce + 2 * kReduce, kAtRing = round_up(kAtBarriers + 256, 128);
  static constexpr int kRing = (kMaxShared - kAtRing) / 128 * 128, kShared = kAtRing + kRing;

  // Weights come in chunks, a linear layer's slice each: fragments, biases, scales of the last one, and scale and shift
  // of the norm before it. Chunk 0 is the convolution in, 4 l + 1 and on are those of layer l, the last one is the
  // convolution out.
  static constexpr int kChunks = 4 * kLayers + 2, kLast = kChunks - 1;
  static MVF_HOST_DEVICE constexpr int inputs(int chunk) {
    if (chunk == 0) return kChannels;
    if (chunk == kLast || chunk % 2 == 1) return kD;
    return chunk % 4 == 2 ? kContext : kHidden;
  }
  static MVF_HOST_DEVICE constexpr int tiles(int chunk) {
    if (chunk == kLast) return kOutTiles;
    if (chunk == 0 || chunk % 2 == 0) return kTiles;
    return chunk % 4 == 1 ? kQkvTiles : kHiddenTiles;
  }
  static MVF_HOST_DEVICE constexpr bool normed(int chunk) { return chunk == kLast || chunk % 2 == 1; }
  static MVF_HOST_DEVICE constexpr int steps(int chunk) { return ceil_div(inputs(chunk), 16); }
  static MVF_HOST_DEVICE constexpr int weight_bytes(int chunk) { return tiles(chunk) * steps(chunk) * kFragment / 2; }
  static MVF_HOST_DEVICE constexpr int at_norm(int chunk) { return weight_bytes(chunk) + tiles(chunk) * 64; }
  static MVF_HOST_DEVICE constexpr int bytes(int chunk) {
    return round_up(at_norm(chunk) + (normed(chunk) ? kPadded * 8 : 0), 128);
  }
};

// The same for sequences of fewer tokens. Their places beyond the last token hold copies of it, which no query sees.
template <class Shape>
struct Masked : Shape {
  static constexpr bool kMasked = true;
};

constexpr int kMaxChunks = 18;

// Where chunks come from and go to: a ring that each enters when the chunk `after`, and all before it, is done with.
struct Schedule {
  int source[kMaxChunks] = {}, target[kMaxChunks] = {}, bytes[kMaxChunks] = {}, after[kMaxChunks] = {};
  int first = 0, all_bytes = 0;  // so many come at once; of a slice
  bool early = true;             // whether every chunk can be asked for while one before it is in use
};

template <class S>
constexpr Schedule schedule() {
  Schedule s;
  int at = 0;
  for (int i = 0; i < S::kChunks; ++i) {
    s.bytes[i] = S::bytes(i);
    if (at + s.bytes[i] > S::kRing) at = 0;
    s.source[i] = s.all_bytes, s.target[i] = S::kAtRing + at, s.after[i] = -1;
    for (int j = 0; j < i; ++j) {
      if (s.target[j] < s.target[i] + s.bytes[i] && s.target[i] < s.target[j] + s.bytes[j]) s.after[i] = j;
    }
    if (i > 0 && s.after[i] < s.after[i - 1]) s.after[i] = s.after[i - 1];
    if (s.after[i] >= 0 && s.after[i] > i - 2) s.early = false;
    if (s.after[i] < 0) s.first = i + 1;
    at += s.bytes[i], s.all_bytes += s.bytes[i];
  }
  return s;
}

using StackShapes =
    List<StackShape<
             144, 2, 256, 4, 4, 96, 8, 0, 6,  // S
             StackSplits<Split<3, 1, 2>, Split<3, 1, 2>, Split<3, 1, 2>, Split<5, 1>, Split<3, 1, 2>, Split<2, 1, 4>>>,
         StackShape<192, 4, 64, 4, 4, 128, 12, 12288, 2,
                    StackSplits<Split<3, 4>, Split<9, 1>, Split<3, 4>, Split<6, 2>, Split<3, 4>, Split<2, 6>>>,
         StackShape<240, 3, 16, 1, 8, 160, 8, 24576, 2,
                    StackSplits<Split<1, 8>, Split<2, 4>, Split<1, 8>, Split<2, 4>, Split<1, 8>, Split<1, 8>>>,
         StackShape<96, 2, 256, 4, 4, 64, 8, 0, 4,  // XS
                    StackSplits<Split<2, 1, 4>, Split<3, 1, 2>, Split<2, 1, 4>, Split<3, 1, 2>, Split<2, 1, 4>,
                                Split<1, 1, 4>>>,
         StackShape<120, 4, 64, 4, 4, 80, 8, 24576, 2,
                    StackSplits<Split<2, 4>, Split<3, 2>, Split<2, 4>, Split<4, 2>, Split<2, 4>, Split<2, 4>>>,
         StackShape<144, 3, 16, 1, 8, 96, 8, 24576, 2,
                    StackSplits<Split<1, 8>, Split<2, 4>, Split<1, 8>, Split<1, 8>, Split<1, 8>, Split<1, 8>>>,
         StackShape<64, 2, 256, 4, 4, 48, 8, 0, 2,  // XXS
                    StackSplits<Split<1, 1, 4>, Split<3, 1, 2>, Split<1, 1, 4>, Split<2, 1, 4>, Split<1, 1, 4>,
                                Split<1, 1, 4>>>,
         StackShape<80, 4, 64, 4, 4, 64, 8, 24576, 2,
                    StackSplits<Split<2, 4>, Split<3, 2>, Split<2, 4>, Split<3, 2>, Split<2, 4>, Split<1, 8>>>,
         StackShape<96, 3, 16, 1, 8, 80, 8, 24576, 2,
                    StackSplits<Split<1, 8>, Split<1, 8>, Split<1, 8>, Split<1, 8>, Split<1, 8>, Split<1, 8>>>>;

// Calls visit(shape) with that of this size; false, calling nothing, where there is none.
template <class Visit, class... Shapes>
bool with_stack_shape(SmallStackSize size, const Visit& visit, List<Shapes...>) {
  const auto fits = [&](auto shape) {
    using S = decltype(shape);
    static_assert(schedule<S>().early && S::kChunks <= kMaxChunks);
    return size.channels == S::kChannels && size.features == S::kD && size.layers == S::kLayers;
  };
  return ((fits(Shapes()) && (visit(Shapes()), true)) || ...);
}

}  // namespace mobilevit_fast::cuda::few
