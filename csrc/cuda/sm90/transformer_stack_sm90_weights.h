// The stream of a stack's weights through a ring of slots in shared memory: who fills it, who takes from it.
//
// Weights lie in blocks of 8 x 8 elements, 128 bytes each and unswizzled: (depth / 8, columns / 8, 8 columns, 8 of the
// depth). A piece has some steps of the depth of one layer, the last piece of a layer also the vectors behind it.
#pragma once

#include "transformer_stack_sm90_shapes.h"
#include "wgmma.h"

namespace mobilevit_fast::cuda {

// Descriptors of unswizzled matrices by one addition each: a place is an address in units of 16 bytes without the bits
// that name the block of a cluster; `leading` (between blocks that are neighbours in the depth) and `stride` (in rows
// or columns) are in these units as well.
MVF_DEVICE uint32_t place_of(uint32_t address) { return (address & 0x3ffff) >> 4; }
MVF_DEVICE uint64_t operand(uint32_t place, uint32_t leading, uint32_t stride) {
  return static_cast<uint64_t>(stride) << 32 | (place + (leading << 16));
}

// The lane that loads. Its order of pieces is the one of the warpgroups' layers.
template <class S>
class WeightLoader {
 public:
  using Pieces = typename S::Pieces;

  MVF_DEVICE explicit WeightLoader(uint32_t memory) : memory_(memory) {}

  // All weights, once for every tile of the block.
  MVF_DEVICE void run(const Bytes16* weights, int tiles) {
    MVF_NO_UNROLL
    for (int tile = 0; tile < tiles; ++tile) {
      next_ = reinterpret_cast<const char*>(weights);
      layer<S::kInSteps, Pieces::kIn, S::kFeatures>(3 * S::kFeatures);
      MVF_NO_UNROLL
      for (int i = 0; i < S::kLayers; ++i) attention(), mlp();
      layer<S::kSteps, Pieces::kOut, S::kChannels>(2 * S::kChannels);
    }
  }

 private:
  MVF_DEVICE void attention() {
    if (S::kPair) query_key_value();
    MVF_NO_UNROLL
    for (int head = 0; head < kStackHeads; ++head) {
      const bool last = head + 1 == kStackHeads;
      if (!S::kPair || !last) query_key_value();
      layer<S::kHeadSteps, Pieces::kProj, S::kFeatures>(last ? 3 * S::kFeatures : 0);
    }
  }
  MVF_DEVICE void query_key_value() {
    MVF_NO_UNROLL
    for (int i = 0; i < S::kQkvProducts; ++i) layer<S::kSteps, Pieces::kQkv, S::kQkv>(S::kQkv);
  }
  MVF_DEVICE void mlp() {
    if (S::kPiped) fc1();
    MVF_NO_UNROLL
    for (int part = 0; part < S::kHiddenParts; ++part) {
      const bool last = part + 1 == S::kHiddenParts;
      if (!S::kPiped || !last) fc1();
      layer<S::kHiddenSteps, Pieces::kFc2, S::kFeatures>(last ? 3 * S::kFeatures : 0);
    }
  }
  MVF_DEVICE void fc1() { layer<S::kSteps, Pieces::kFc1, S::kHiddenPart>(S::kHiddenPart); }

  template <int kSteps, int kPieceSteps, int kColumns>
  MVF_DEVICE void layer(int vectors) {
    constexpr int kPieces = ceil_div(kSteps, kPieceSteps), kLast = kSteps - (kPieces - 1) * kPieceSteps;
    MVF_NO_UNROLL
    for (int i = 1; i < kPieces; ++i) piece(kPieceSteps * kColumns * 32);
    const int bytes = kLast * kColumns * 32 + vectors * 4;
    piece(bytes);
    next_ += round_up(bytes, 128) - bytes;
  }
  MVF_DEVICE void piece(int bytes) {
    const uint32_t full = memory_ + slot_ * 8;
    barrier_wait(full + S::kSlots * 8, parity_);
    barrier_expect(full, bytes);
    copy_bulk(memory_ + S::kSlotsAt + slot_ * S::kSlotBytes, next_, bytes, full);
    next_ += bytes;
    if (++slot_ == S::kSlots) slot_ = 0, parity_ ^= 1;
  }

  const uint32_t memory_;
  const char* next_ = nullptr;
  int slot_ = 0, parity_ = 1;
};

// The ring as a warpgroup sees it, which gives slots back in the order in which it took them.
template <class S>
struct WeightRing {
  struct Slot {
    uint32_t address, place;
  };

  uint32_t memory, place;  // of the block; the same as a place
  int next = 0, last = 0;  // slot to be taken, slot to be given back
  int parity = 0;

  MVF_DEVICE Slot take() {
    barrier_wait(memory + next * 8, parity);
    const uint32_t at = S::kSlotsAt + next * S::kSlotBytes;
    if (++next == S::kSlots) next = 0, parity ^= 1;
    return {memory + at, place + at / 16};
  }
  MVF_DEVICE void give_back(int count = 1) {
    sync_warp();
    MVF_UNROLL
    for (int i = 0; i < count; ++i) {
      if (thread_index() % kWarpSize == 0) barrier_arrive(memory + (S::kSlots + last) * 8);
      if (++last == S::kSlots) last = 0;
    }
  }

  // Begins the products of a layer: multiply(step, right operand). All its pieces stay taken. Returns the address of
  // the vectors behind the last one's weights.
  template <int kSteps, int kPieceSteps, int kColumns, class Multiply>
  MVF_DEVICE uint32_t begin(const Multiply& multiply) {
    constexpr int kPieces = ceil_div(kSteps, kPieceSteps);
    Slot slot{};
    MVF_UNROLL
    for (int i = 0; i < kPieces; ++i) slot = multiply_piece<kSteps, kPieceSteps, kColumns>(i, multiply);
    wgmma_commit();
    return slot.address + (kSteps - (kPieces - 1) * kPieceSteps) * kColumns * 32;
  }

  // The same to its end; the last piece stays taken.
  template <int kSteps, int kPieceSteps, int kColumns, class Multiply>
  MVF_DEVICE uint32_t multiply_all(const Multiply& multiply) {
    constexpr int kPieces = ceil_div(kSteps, kPieceSteps);
    Slot slot{};
    MVF_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      slot = multiply_piece<kSteps, kPieceSteps, kColumns>(i, multiply);
      wgmma_commit();
      if (i > 0) {
        wgmma_wait<1>();
        give_back();
      }
    }
    wgmma_wait<0>();
    return slot.address + (kSteps - (kPieces - 1) * kPieceSteps) * kColumns * 32;
  }

 private:
  template <int kSteps, int kPieceSteps, int kColumns, class Multiply>
  MVF_DEVICE Slot multiply_piece(int piece, const Multiply& multiply) {
    const Slot slot = take();
    wgmma_fence();
    MVF_UNROLL
    for (int i = 0; i < kPieceSteps; ++i) {
      const int step = piece * kPieceSteps + i;
      if (step < kSteps) multiply(step, operand(slot.place + i * kColumns * 2, kColumns, 8));
    }
    return slot;
  }
};

}  // namespace mobilevit_fast::cuda
