// The weights of a transformer stack as one stream of units, through a ring in shared memory that all warps read.
//
// A unit is kSteps fragments of two products: of a layer that takes all features, the weights of 16 outputs; of one
// that adds to all features, those of 16 inputs.
#pragma once

#include "mobilevit_transformer_params.h"

namespace mobilevit_fast::cuda {

// Steps of the projection that are whole once the context of so many heads is there.
MVF_HOST_DEVICE int projected_steps(const MobileViTTransformerParams& p, int heads) {
  return heads == p.heads ? ceil_div(p.features, kMatrixDepth) : heads * p.head_dim / kMatrixDepth;
}

// The units in the order of their use.
template <int kSteps>
class UnitOrder {
 public:
  struct Unit {
    const Bytes16* first;
    int stride;  // from fragment to fragment
  };

  MVF_DEVICE explicit UnitOrder(const TransformerLayers& layers) : layers_(layers) {
    begin(Part::in, layers.in(), 0, ceil_div(layers.p.channels, kMatrixDepth));
  }

  MVF_DEVICE bool ended() const { return part_ == Part::end; }
  MVF_DEVICE Unit next() {
    const Unit unit{next_, stride_};
    next_ += stride_ == kWarpSize ? kSteps * kWarpSize : kWarpSize;
    if (--left_ == 0) begin_next();
    return unit;
  }

 private:
  enum class Part { in, qkv, proj, fc1, fc2, out, end };

  // Units of a layer from the first-th on: of layers that add to all features, those of its inputs.
  MVF_DEVICE void begin(Part part, const Linear& linear, int first, int count) {
    const bool adds = part == Part::in || part == Part::proj || part == Part::fc2;
    part_ = part, left_ = count, stride_ = adds ? kWarpSize : linear.pairs * kWarpSize;
    next_ = linear.weight + first * (adds ? kSteps * kWarpSize : kWarpSize);
  }
  MVF_DEVICE void begin_head(int head) {
    index_ = head;
    begin(Part::qkv, layers_.qkv(layer_), head * layers_.p.head_pairs, layers_.p.head_pairs);
  }
  MVF_DEVICE void begin_hidden(int pair) {
    index_ = pair;
    begin(Part::fc1, layers_.fc1(layer_), pair, 1);
  }
  MVF_DEVICE void begin_next() {
    const MobileViTTransformerParams& p = layers_.p;
    if (part_ == Part::in) return begin_head(0);
    if (part_ == Part::qkv) {
      const int from = projected_steps(p, index_), to = projected_steps(p, index_ + 1);
      return begin(Part::proj, layers_.proj(layer_), from, to - from);
    }
    if (part_ == Part::proj) return index_ + 1 < p.heads ? begin_head(index_ + 1) : begin_hidden(0);
    if (part_ == Part::fc1) return begin(Part::fc2, layers_.fc2(layer_), index_, 1);
    if (part_ == Part::fc2) {
      if (index_ + 1 < ceil_div(p.hidden, kPairColumns)) return begin_hidden(index_ + 1);
      if (++layer_ < p.layers) return begin_head(0);
      return begin(Part::out, layers_.out(), 0, ceil_div(p.outputs, kPairColumns));
    }
    part_ = Part::end;
  }

  const TransformerLayers& layers_;
  const Bytes16* next_;
  Part part_;
  int stride_, left_, index_ = 0, layer_ = 0;  // units left of the run; head, or pair of hidden units
};

// All warps take the same units in the same order, and all of them copy what comes next.
template <int kSteps, int kWarps>
class UnitRing {
 public:
  static constexpr int kTogether = 2, kStages = 3;  // units between two barriers
  static constexpr int kUnits = kStages * kTogether, kPieces = kSteps * kWarpSize;

  MVF_DEVICE UnitRing(const TransformerLayers& layers, Bytes16* memory) : order_(layers), memory_(memory) {
    for (int stage = 0; stage < kStages - 1; ++stage) load(stage * kTogether);
  }

  // The lane's part of the first fragment of the next unit; the others follow kWarpSize pieces after one another. It
  // stays until kTogether more are taken.
  MVF_DEVICE const Bytes16* take() {
    if (at_ % kTogether == 0) {
      wait_async<kStages - 2>();
      sync_block();  // these have come, and no warp reads those before
      load(at_ == 0 ? kUnits - kTogether : at_ - kTogether);
    }
    const Bytes16* unit = memory_ + at_ * kPieces + lane_index();
    at_ = at_ + 1 == kUnits ? 0 : at_ + 1;
    return unit;
  }

 private:
  MVF_DEVICE void load(int at) {
    MVF_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      if (order_.ended()) break;
      const typename UnitOrder<kSteps>::Unit unit = order_.next();
      MVF_UNROLL
      for (int round = 0; round < ceil_div(kSteps, kWarps); ++round) {
        const int f = round * kWarps + warp_index();
        if (f >= kSteps) break;
        copy_async(memory_ + (at + i) * kPieces + f * kWarpSize + lane_index(),
                   unit.first + f * unit.stride + lane_index(), true);
      }
    }
    commit_async();
  }

  UnitOrder<kSteps> order_;
  Bytes16* const memory_;
  int at_ = 0;
};

}  // namespace mobilevit_fast::cuda
