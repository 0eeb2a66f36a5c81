// The weights of a transformer stack as one stream of units, through a ring in shared memory that all warps read.
//
// A unit is kSteps fragments of two products: of a layer that takes all features, the weights of 16 outputs; of one
// that adds to all features, those of 16 inputs.
#pragma once

#include "mobilevit_transformer_params.h"

namespace mobilevit_fast::cuda {

struct alignas(8) WeightUnit {
  int first, stride;  // in pieces: from the first of all packed weights, and from fragment to fragment
};

// The units in the order of their use: the convolution in; the layers, of which a head's query, key and value come
// before what of the projection it completes, and 16 hidden units before what they add; the convolution out.
template <int kSteps>
struct UnitOrder {
  const TransformerLayers& layers;

  // Steps of the projection that are whole once the context of so many heads is there.
  static MVF_HOST_DEVICE int projected(const MobileViTTransformerParams& p, int heads) {
    return heads == p.heads ? kSteps : heads * p.head_dim / kMatrixDepth;
  }
  static MVF_HOST_DEVICE int of_layer(const MobileViTTransformerParams& p) {
    return p.heads * p.head_pairs + kSteps + 2 * ceil_div(p.hidden, kPairColumns);
  }
  static MVF_HOST_DEVICE int count(const MobileViTTransformerParams& p) {
    return ceil_div(p.channels, kMatrixDepth) + p.layers * of_layer(p) + ceil_div(p.outputs, kPairColumns);
  }

  MVF_DEVICE WeightUnit unit(int i) const {
    const MobileViTTransformerParams& p = layers.p;
    const int in = ceil_div(p.channels, kMatrixDepth), layer = (i - in) / of_layer(p);
    if (i < in) return adding(layers.in(), i);
    i -= in + layer * of_layer(p);
    if (layer >= p.layers) return taking(layers.out(), i + (layer - p.layers) * of_layer(p));
    for (int head = 0; head < p.heads; ++head) {
      if (i < p.head_pairs) return taking(layers.qkv(layer), head * p.head_pairs + i);
      i -= p.head_pairs;
      const int done = projected(p, head), more = projected(p, head + 1) - done;
      if (i < more) return adding(layers.proj(layer), done + i);
      i -= more;
    }
    return i % 2 == 0 ? taking(layers.fc1(layer), i / 2) : adding(layers.fc2(layer), i / 2);
  }

 private:
  MVF_DEVICE WeightUnit taking(const Linear& linear, int pair) const {
    return {static_cast<int>(linear.weight - layers.p.in_weight) + pair * kWarpSize, linear.pairs * kWarpSize};
  }
  MVF_DEVICE WeightUnit adding(const Linear& linear, int step) const {
    return {static_cast<int>(linear.weight - layers.p.in_weight) + step * kSteps * kWarpSize, kWarpSize};
  }
};

// All warps take the same units in the same order, and all of them copy what comes next.
template <int kSteps, int kWarps>
class UnitRing {
 public:
  static constexpr int kTogether = 2, kStages = 2;  // units between two barriers
  static constexpr int kUnits = kStages * kTogether, kPieces = kSteps * kWarpSize;
  using Order = UnitOrder<kSteps>;

  // Of arrays for the ring and for the table of its units.
  static MVF_HOST_DEVICE int table_units(const MobileViTTransformerParams& p) {
    return round_up(Order::count(p), kTogether);
  }

  MVF_DEVICE UnitRing(const TransformerLayers& layers, Bytes16* ring, WeightUnit* table)
      : weights_(layers.p.in_weight), ring_(ring), table_(table), end_(table_units(layers.p)) {
    const Order order{layers};
    for (int i = thread_index(); i < end_; i += kWarps * kWarpSize) {
      store_shared(table + i, order.unit(i < Order::count(layers.p) ? i : 0));
    }
    sync_block();
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
    const Bytes16* unit = ring_ + at_ * kPieces + lane_index();
    at_ = at_ + 1 == kUnits ? 0 : at_ + 1;
    return unit;
  }

 private:
  MVF_DEVICE void load(int at) {
    if (loaded_ < end_) {
      MVF_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        const WeightUnit unit = load_shared(table_ + loaded_ + i);
        const Bytes16* const from = weights_ + unit.first + lane_index();
        Bytes16* const to = ring_ + (at + i) * kPieces + lane_index();
        MVF_UNROLL
        for (int round = 0; round < ceil_div(kSteps, kWarps); ++round) {
          const int f = round * kWarps + warp_index();
          if (f < kSteps) copy_async(to + f * kWarpSize, from + f * unit.stride, true);
        }
      }
      loaded_ += kTogether;
    }
    commit_async();
  }

  const Bytes16* const weights_;
  Bytes16* const ring_;
  WeightUnit* const table_;
  const int end_;
  int at_ = 0, loaded_ = 0;
};

}  // namespace mobilevit_fast::cuda
