// The weights of a stack as one stream through a ring in shared memory. Every block takes all of it, in the same order.
#pragma once

#include "small_tokens_shapes_sm90.h"

namespace mobilevit_fast::cuda::few {

// A warp's place in it. Slabs are filled by copies that warp 0 asks for, and given back when all warps that multiply
// have gone past them. Everything follows from the place: registers are short where a block attends.
template <class S>
class WeightStream {
 public:
  MVF_DEVICE WeightStream(const Bytes16* weights, uint32_t shared)
      : weights_(weights), ring_(shared + S::kAtRing), barriers_(shared + S::kAtBarriers) {}

  // By all threads of a block before any wait: the first slabs, one a thread.
  MVF_DEVICE void begin() const {
    const int slot = thread_index();
    if (slot >= S::kSlots) return;
    barrier_init(filled(slot), 1);
    barrier_init(emptied(slot), S::kColumnWarps);
    barrier_init_fence();
    if (slot < S::kSlabs) load(slot);
  }

  // Until the next bytes are there.
  MVF_DEVICE void need(int bytes) const {
    MVF_NO_UNROLL
    for (int slab = slabs_to(position_); slab < slabs_to(position_ + bytes); ++slab) {
      barrier_wait(filled(slab % S::kSlots), slab / S::kSlots & 1);
    }
  }
  // The lane's part of fragments so many bytes ahead: what it adds to `place` and hands to `fragment`.
  MVF_DEVICE int place() const { return position_ % S::kRing; }
  MVF_DEVICE Bytes16 fragment(int place, int lane) const {
    return load_shared_at<Bytes16>(ring_ + (place < S::kRing ? place : place - S::kRing) + lane * 16);
  }
  // Leaves so many bytes behind; the warp has read what it wants of them.
  MVF_DEVICE void advance(int bytes, int lane, int warp) {
    const int before = position_ / S::kSlab, after = (position_ + bytes) / S::kSlab;
    position_ += bytes;
    if (after == before) return;
    sync_warp();
    MVF_NO_UNROLL
    for (int slab = before; slab < after; ++slab) {
      if (lane == 0) barrier_arrive(emptied(slab % S::kSlots));
    }
    MVF_NO_UNROLL
    for (int slab = issued(before); slab < issued(after); ++slab) {
      if (slab % S::kColumnWarps == warp && lane == 0) refill(slab);
    }
  }

 private:
  MVF_DEVICE static int slabs_to(int bytes) { return (bytes + S::kSlab - 1) / S::kSlab; }
  MVF_DEVICE uint32_t filled(int slot) const { return barriers_ + slot * 16; }
  MVF_DEVICE uint32_t emptied(int slot) const { return barriers_ + slot * 16 + 8; }

  MVF_DEVICE void load(int slab) const {
    const int from = slab * S::kSlab, rest = S::kStreamBytes - from, bytes = rest < S::kSlab ? rest : S::kSlab;
    const int slot = slab % S::kSlots;
    barrier_expect(filled(slot), bytes);
    copy_bulk(ring_ + slot * S::kSlab, weights_ + from / 16, bytes, filled(slot));
  }
  // Slabs that have been asked for once a warp has passed so many, all warps together: the slots of these but the last
  // one hold others. A warp that asks waits until all have passed what the slot held. They are about to, as they wait
  // for nothing that this one has to do: it passed those slabs itself.
  MVF_DEVICE static int issued(int passed) {
    const int wanted = passed > 1 ? passed - 1 + S::kSlots : S::kSlots;
    return wanted < S::kSlabs ? wanted : S::kSlabs;
  }
  MVF_DEVICE void refill(int slab) const {
    barrier_wait(emptied(slab % S::kSlots), (slab / S::kSlots - 1) & 1);
    load(slab);
  }

  const Bytes16* weights_;
  uint32_t ring_, barriers_;
  int position_ = 0;  // bytes behind
};

}  // namespace mobilevit_fast::cuda::few
