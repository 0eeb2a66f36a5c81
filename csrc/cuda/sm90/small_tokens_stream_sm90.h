// The weights of a stack as one stream through a ring in shared memory. Every block takes all of it, in the same order.
#pragma once

#include "small_tokens_shapes_sm90.h"

namespace mobilevit_fast::cuda::few {

// A warp's place in it. Slabs are filled by copies that warp 0 asks for, and given back when all warps that multiply
// have gone past them.
template <class S>
class WeightStream {
 public:
  MVF_DEVICE WeightStream(const Bytes16* weights, uint32_t shared)
      : weights_(weights), ring_(shared + S::kAtRing), barriers_(shared + S::kAtBarriers) {}

  // By all threads of a block before any wait: the first slabs, one a thread.
  MVF_DEVICE void begin() {
    const int slot = thread_index();
    issued_ = S::kSlots < S::kSlabs ? S::kSlots : S::kSlabs;
    if (slot >= S::kSlots) return;
    barrier_init(filled(slot), 1);
    barrier_init(emptied(slot), S::kColumnWarps);
    barrier_init_fence();
    if (slot < S::kSlabs) load(slot);
  }

  // Until the next bytes are there.
  MVF_DEVICE void need(int bytes) {
    for (; full_ * S::kSlab < position_ + bytes; ++full_) {
      barrier_wait(filled(full_ % S::kSlots), full_ / S::kSlots & 1);
    }
  }
  // What a lane has of the fragment so many bytes ahead.
  MVF_DEVICE Bytes16 fragment(int ahead, int lane) const {
    int at = place_ + ahead;
    if (at >= S::kRing) at -= S::kRing;
    return load_shared_at<Bytes16>(ring_ + at + lane * 16);
  }
  // Leaves so many bytes behind; the warp has read what it wants of them.
  MVF_DEVICE void advance(int bytes) {
    position_ += bytes, place_ += bytes;
    if (place_ >= S::kRing) place_ -= S::kRing;
    if ((passed_ + 1) * S::kSlab > position_) return;
    sync_warp();
    for (; (passed_ + 1) * S::kSlab <= position_; ++passed_) {
      if (thread_index() % kWarpSize == 0) barrier_arrive(emptied(passed_ % S::kSlots));
    }
    if (thread_index() == 0) refill();
  }

 private:
  MVF_DEVICE uint32_t filled(int slot) const { return barriers_ + slot * 16; }
  MVF_DEVICE uint32_t emptied(int slot) const { return barriers_ + slot * 16 + 8; }

  MVF_DEVICE void load(int slab) const {
    const int from = slab * S::kSlab, rest = S::kStreamBytes - from, bytes = rest < S::kSlab ? rest : S::kSlab;
    const int slot = slab % S::kSlots;
    barrier_expect(filled(slot), bytes);
    copy_bulk(ring_ + slot * S::kSlab, weights_ + from / 16, bytes, filled(slot));
  }
  // Into the slots of all slabs before the last one that this warp has passed: other warps, which wait for nothing that
  // this one has to do, have passed them too or are about to.
  MVF_DEVICE void refill() {
    for (; issued_ < S::kSlabs && issued_ - S::kSlots < passed_ - 1; ++issued_) {
      barrier_wait(emptied(issued_ % S::kSlots), (issued_ / S::kSlots - 1) & 1);
      load(issued_);
    }
  }

  const Bytes16* weights_;
  uint32_t ring_, barriers_;
  int position_ = 0;  // bytes behind
  int place_ = 0, full_ = 0, passed_ = 0,
      issued_ = 0;  // in the ring; slabs that are known to be there, passed, asked for
};

}  // namespace mobilevit_fast::cuda::few
