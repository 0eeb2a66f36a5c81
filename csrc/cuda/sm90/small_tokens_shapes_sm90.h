// The transformer stacks that are divided by tokens alone, and where a block keeps what.
#pragma once

#include "small_parts_sm90.h"
#include "small_tokens_sm90.h"

namespace mobilevit_fast::cuda::few {

// A block has 16 tokens. kColumnWarps warps have kOwn pairs of tiles of 8 columns of every layer, kKeyParts warps of
// each head a part of the keys.
template <int kD_, int kLayers_, int kTokens_, int kChannels_, int kColumnWarps_, int kOwn_, int kKeyParts_>
struct TokensShape {
  static constexpr int kD = kD_, kLayers = kLayers_, kTokens = kTokens_, kChannels = kChannels_, kHeads = 4;
  static constexpr int kColumnWarps = kColumnWarps_, kOwn = kOwn_, kKeyParts = kKeyParts_;
  static constexpr int kAttendWarps = kHeads * kKeyParts;
  static constexpr int kAllWarps = kColumnWarps > kAttendWarps ? kColumnWarps : kAttendWarps;
  static constexpr int kRows = 16, kCluster = kTokens / kRows, kKeys = kTokens / kKeyParts;
  static constexpr int kPairs = ceil_div(kD, 16), kPadded = kPairs * 16;  // of x, and as many steps of its columns
  static constexpr int kInSteps = kChannels / 16, kOutPairs = kChannels / 16;
  static_assert(kOwn * kColumnWarps >= kPairs && kOutPairs <= kPairs && kChannels % 16 == 0 && kKeys % 16 == 0);
  // A head's columns begin and end anywhere; it sees whole steps of 16, at most kHeadSteps.
  static constexpr int kHeadDim = kD / kHeads;
  static MVF_HOST_DEVICE constexpr int steps_of_head(int head) {
    return ceil_div((head + 1) * kHeadDim, 16) - head * kHeadDim / 16;
  }
  static MVF_HOST_DEVICE constexpr int most(int a, int b) { return a > b ? a : b; }
  static constexpr int kHeadSteps =
      most(most(steps_of_head(0), steps_of_head(1)), most(steps_of_head(2), steps_of_head(3)));
  static_assert(kHeadDim % 2 == 0);

  // All weights as one stream: fragments by step and pair of tiles, layer after layer; the same for all blocks.
  static constexpr int kStreamBytes = (kLayers * 8 * kPairs + kInSteps + kOutPairs) * kPairs * kFragment;
  // Behind it vectors of kPadded numbers: the bias of the convolution in, those of layers, the norm at the end, scale
  // and bias of the convolution out. Of a layer: norm, bias of query, key and value, of the projection, norm, bias of
  // both layers of the MLP.
  enum LayerVector { kNorm1 = 0, kQkvBias = 2, kProjBias = 5, kNorm2 = 6, kFc1Bias = 8, kFc2Bias = 10, kOfLayer = 11 };
  static constexpr int kVectors = 1 + kLayers * kOfLayer + 4;
  static constexpr int kBytes = kStreamBytes + kVectors * kPadded * 4;

  // Shared memory: normed tokens, or context; query; hidden units, the input, or sums of the other parts of the keys;
  // x.
  static constexpr int kRowsBytes = kPairs * kFragment;
  static constexpr int kHandedNumbers = kHeadSteps * 8 + 4;
  static constexpr int kHandedBytes = (kKeyParts - 1) * kHeads * kHandedNumbers * kWarpSize * 4;
  static constexpr int kAtNormed = 0, kAtQuery = kAtNormed + kRowsBytes, kAtHidden = kAtQuery + kRowsBytes;
  static constexpr int kAtX = kAtHidden + most(2 * kRowsBytes, kHandedBytes), kAtStats = kAtX + 2 * kRowsBytes;
  static constexpr int kAtBarriers = kAtStats + kRows * kColumnWarps * 8;
  // The ring that the stream goes through. It leaves room for blocks of the kernel before, larger ones of larger
  // images.
  static constexpr int kSlab = kPairs < 12 ? 8192 : 16384, kMostSlots = 16;
  static constexpr int kAtRing = round_up(kAtBarriers + kMostSlots * 16, 128);
  static constexpr int kRoom = (kTokens > 64 ? 144 : 180) * 1024 - kAtRing;
  static constexpr int kSlots = kRoom / kSlab < kMostSlots ? kRoom / kSlab : kMostSlots;
  static constexpr int kRing = kSlots * kSlab, kShared = kAtRing + kRing;
  static constexpr int kSlabs = ceil_div(kStreamBytes, kSlab);
  static_assert(kShared <= kMostShared && kSlots >= 8);
};

using TokensShapes = List<TokensShape<144, 2, 256, 96, 9, 1, 4>, TokensShape<192, 4, 64, 128, 12, 1, 2>,
                          TokensShape<240, 3, 16, 160, 8, 2, 1>,  // S
                          TokensShape<96, 2, 256, 64, 6, 1, 4>, TokensShape<120, 4, 64, 80, 8, 1, 2>,
                          TokensShape<144, 3, 16, 96, 9, 1, 1>,  // XS
                          TokensShape<64, 2, 256, 48, 4, 1, 4>, TokensShape<80, 4, 64, 64, 5, 1, 2>,
                          TokensShape<96, 3, 16, 80, 6, 1, 1>>;  // XXS

}  // namespace mobilevit_fast::cuda::few
