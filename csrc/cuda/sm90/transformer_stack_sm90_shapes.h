// Shapes of the transformer stacks that compute capability 9.0 has kernels for, and what follows from a shape.
#pragma once

#include "cuda/mobilevit_transformer/mobilevit_transformer.h"

namespace mobilevit_fast::cuda {

// A block has kStackGroups warpgroups of kGroupRows tokens each, and a warpgroup more, of which a lane loads weights.
constexpr int kStackGroups = 2, kGroupRows = 64, kTileRows = kStackGroups * kGroupRows, kStackHeads = 4;

// Biases and norms are loaded in batches before what they meet is stored, not one by one between the stores.
constexpr bool kLoadsAhead = false;

// Depth steps (16 elements each) of a layer's weights that come to shared memory at once.
template <int kIn_, int kQkv_, int kProj_, int kFc1_, int kFc2_, int kOut_>
struct PieceSteps {
  static constexpr int kIn = kIn_, kQkv = kQkv_, kProj = kProj_, kFc1 = kFc1_, kFc2 = kFc2_, kOut = kOut_;
};

// kHiddenPart: hidden units that are computed before the next ones.
template <int kTokens_, int kChannels_, int kFeatures_, int kHidden_, int kLayers_, int kHiddenPart_, class Pieces_>
struct StackShape {
  using Pieces = Pieces_;
  static constexpr int kTokens = kTokens_, kChannels = kChannels_, kFeatures = kFeatures_, kHidden = kHidden_,
                       kLayers = kLayers_;
  static constexpr int kHiddenPart = kHiddenPart_, kHiddenParts = kHidden / kHiddenPart,
                       kHiddenSteps = kHiddenPart / kMatrixDepth;
  static_assert(kTokens == 256 || kTokens == 64 || kTokens == 16);
  static_assert(kChannels % 16 == 0 && kFeatures % 8 == 0 && kHidden % kHiddenPart == 0 && kHiddenPart % 16 == 0);

  static constexpr bool kMasked = false;

  // A sequence of fewer tokens takes as long as one of kTokens. By an H200's times of whole ones, the kernels for all
  // chips are slower from so many on, for every width.
  static constexpr int kLeastTokens = kTokens == 256 ? 100 : kTokens == 64 ? 14 : 4;

  // A sequence takes two blocks of a cluster, one warpgroup, or one warp.
  static constexpr bool kPair = kTokens == 256, kWarp = kTokens == 16;

  static constexpr int kHeadDim = kFeatures / kStackHeads;
  // In a pair, a value of one beside each head's adds up the weights of the softmax.
  static constexpr int kHeadWidth = round_up(kPair ? kHeadDim + 1 : kHeadDim, kMatrixColumns);
  static constexpr int kHeadTiles = kHeadWidth / kMatrixColumns, kHeadSteps = ceil_div(kHeadWidth, kMatrixDepth);
  static constexpr int kTiles = kFeatures / kMatrixColumns, kSteps = ceil_div(kFeatures, kMatrixDepth);
  static constexpr int kInSteps = kChannels / kMatrixDepth;
  // Query, key and value of a head come from one product, or, where there are no registers for that, from three.
  static constexpr int kQkvProducts = kWarp ? 3 : 1, kQkv = 3 / kQkvProducts * kHeadWidth;

  // Where there are registers for it, the MLP's normed rows are in registers, and two parts of its units under way.
  static constexpr bool kPiped = kFeatures <= 192;
  // A head's context waits to be projected together with the next head's query, key and value, and one warpgroup
  // begins these products while the other is busy with its softmax.
  static constexpr bool kTurns = kTokens == 64;

  static constexpr int kKeys = kPair ? 256 : 64;
  static constexpr int kHeadBytes = kHeadWidth * kKeys * 2;                    // of a head's keys, or of its values
  static constexpr int kBuffers = kWarp ? 0 : kPair ? 2 : 4;                   // of keys and values: two for a sequence
  static constexpr int kNormedBytes = kGroupRows * kSteps * kMatrixDepth * 2;  // of a warpgroup's normed rows

  static constexpr int kQueryBytes = kGroupRows * kHeadWidth * 2;  // of a pair's next head, of a warpgroup

  static constexpr int larger(int a, int b) { return a > b ? a : b; }
  static constexpr int kPieceBytes = 32 * larger(larger(larger(Pieces::kIn * kFeatures, Pieces::kQkv* kQkv),
                                                        larger(Pieces::kProj* kFeatures, Pieces::kFc1* kHiddenPart)),
                                                 larger(Pieces::kFc2* kFeatures, Pieces::kOut* kChannels));
  static constexpr int kSlotBytes = round_up(kPieceBytes + 3 * kFeatures * 4, 128);

  // Shared memory: barriers (full and empty of every slot, full and empty of two buffers of keys and values), normed
  // rows, keys and values, a pair's queries, slots for pieces of weights.
  static constexpr int kBarrierBytes = 1024, kMaxSlots = 24, kMaxShared = 227 << 10;
  static constexpr int kNormedAt = kBarrierBytes, kHeadsAt = kNormedAt + kStackGroups * kNormedBytes,
                       kQueriesAt = kHeadsAt + kBuffers * 2 * kHeadBytes,
                       kSlotsAt = kQueriesAt + (kPair ? kStackGroups * kQueryBytes : 0);
  static constexpr int kFitting = (kMaxShared - kSlotsAt) / kSlotBytes;
  static constexpr int kSlots = kFitting < kMaxSlots ? kFitting : kMaxSlots;
  static constexpr int kValuesFull = kSlots * 16, kValuesEmpty = kValuesFull + 16;
  static constexpr int kShared = kSlotsAt + kSlots * kSlotBytes;
  static_assert(kSlots >= 4 && kSlots * 16 + 32 <= kBarrierBytes);

  // The stream of weights. Of a layer: the weights (steps of depth, columns) and float32 vectors behind them.
  static constexpr int layer_bytes(int steps, int columns, int vectors) {
    return round_up(steps * columns * 32 + vectors * 4, 128);
  }
  static constexpr int kAttentionBytes =
      kStackHeads * (kQkvProducts * layer_bytes(kSteps, kQkv, kQkv) + layer_bytes(kHeadSteps, kFeatures, 0));
  static constexpr int kMlpBytes =
      kHiddenParts * (layer_bytes(kSteps, kHiddenPart, kHiddenPart) + layer_bytes(kHiddenSteps, kFeatures, 0));
  static constexpr int kStreamBytes =
      layer_bytes(kInSteps, kFeatures, 3 * kFeatures) +
      kLayers * (kAttentionBytes + kMlpBytes + 2 * layer_bytes(0, kFeatures, 3 * kFeatures)) +
      layer_bytes(kSteps, kChannels, 2 * kChannels);

  static bool suits(const MobileViTTransformerParams& p) {
    return p.channels == kChannels && p.outputs == kChannels && p.features == kFeatures && p.hidden == kHidden &&
           p.layers == kLayers && p.heads == kStackHeads;
  }
};

// The same for sequences of fewer tokens. Their places beyond the last token hold copies of it, which no query sees.
template <class Shape>
struct Masked : Shape {
  static constexpr bool kMasked = true;
};

// MobileViT-S, -XS and -XXS at 256 x 256 pixels; in this order in transformer_stack.py too.
using SmallStack1 = StackShape<256, 96, 144, 288, 2, 48, PieceSteps<3, 3, 3, 9, 3, 3>>;
using SmallStack2 = StackShape<64, 128, 192, 384, 4, 48, PieceSteps<3, 4, 3, 12, 3, 4>>;
using SmallStack3 = StackShape<16, 160, 240, 480, 3, 96, PieceSteps<2, 8, 2, 5, 2, 3>>;
using ExtraSmallStack1 = StackShape<256, 64, 96, 192, 2, 48, PieceSteps<4, 4, 2, 6, 3, 6>>;
using ExtraSmallStack2 = StackShape<64, 80, 120, 240, 4, 48, PieceSteps<5, 4, 2, 8, 3, 4>>;
using ExtraSmallStack3 = StackShape<16, 96, 144, 288, 3, 48, PieceSteps<3, 9, 3, 9, 3, 3>>;
using ExtraExtraSmallStack1 = StackShape<256, 48, 64, 128, 2, 64, PieceSteps<3, 4, 2, 4, 4, 4>>;
using ExtraExtraSmallStack2 = StackShape<64, 64, 80, 160, 4, 80, PieceSteps<4, 5, 2, 5, 5, 5>>;
using ExtraExtraSmallStack3 = StackShape<16, 80, 96, 192, 3, 48, PieceSteps<5, 6, 2, 6, 3, 6>>;

// Calls visit(KernelType<Shape>()) with the shape of a stack; false where there is none.
template <class Visit, class... Shapes>
bool with_shape_of(const MobileViTTransformerParams& p, const Visit& visit, KernelType<Shapes>... shapes) {
  return ((Shapes::suits(p) && (visit(shapes), true)) || ...);
}
template <class Visit>
bool with_stack_shape(const MobileViTTransformerParams& p, const Visit& visit) {
  return with_shape_of(p, visit, KernelType<SmallStack1>(), KernelType<SmallStack2>(), KernelType<SmallStack3>(),
                       KernelType<ExtraSmallStack1>(), KernelType<ExtraSmallStack2>(), KernelType<ExtraSmallStack3>(),
                       KernelType<ExtraExtraSmallStack1>(), KernelType<ExtraExtraSmallStack2>(),
                       KernelType<ExtraExtraSmallStack3>());
}

}  // namespace mobilevit_fast::cuda
