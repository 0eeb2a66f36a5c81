// Barriers, registers, clusters and dependent launches of device_sm90.h and cuda/addresses.h.
#pragma once

#include "emulated_shared.h"

namespace mobilevit_fast::cuda {

inline void named_barrier_sync(int id, int threads, MVF_PLACE) {
  sm90_block().named_barrier(id, threads, true, MVF_HERE);
}
inline void named_barrier_arrive(int id, int threads, MVF_PLACE) {
  sm90_block().named_barrier(id, threads, false, MVF_HERE);
}
template <int kRegisters>
void take_registers(MVF_PLACE) {
  sm90_block().set_registers(kRegisters, true, MVF_HERE);
}
template <int kRegisters>
void give_registers(MVF_PLACE) {
  sm90_block().set_registers(kRegisters, false, MVF_HERE);
}

inline void barrier_init(uint32_t barrier, int arrivals, MVF_PLACE) {
  sm90_block().make_barrier(barrier, arrivals, MVF_HERE);
}
inline void barrier_init_fence() { ++sm90_block().more().init_fences; }
MVF_OUT_OF_LINE inline void barrier_expect(uint32_t barrier, int bytes, MVF_PLACE) {
  emulated::Sm90Block& block = sm90_block();
  emulated::Barrier& found = block.barrier_at(barrier, MVF_HERE);
  found.bytes += bytes;
  block.arrive(found, MVF_HERE);
  block.give_way();
}
MVF_OUT_OF_LINE inline void barrier_arrive(uint32_t barrier, MVF_PLACE) {
  emulated::Sm90Block& block = sm90_block();
  block.arrive(block.barrier_at(barrier, MVF_HERE), MVF_HERE);
  block.give_way();
}
MVF_OUT_OF_LINE inline void barrier_arrive_remote(uint32_t barrier, MVF_PLACE) {
  emulated::Sm90Block& block = sm90_block().cluster.block_of(barrier, MVF_HERE);
  emulated::Barrier& found = block.barrier_at(barrier, MVF_HERE);
  if (&block != &sm90_block()) block.expect_init_fence(found, MVF_HERE);
  block.arrive(found, MVF_HERE);
  sm90_block().give_way();
}
MVF_OUT_OF_LINE inline void barrier_wait(uint32_t barrier, int parity, MVF_PLACE) {
  emulated::Sm90Block& block = sm90_block();
  block.wait_barrier(block.barrier_at(barrier, MVF_HERE), parity, MVF_HERE);
}
inline void barrier_wait_cluster(uint32_t barrier, int parity, MVF_PLACE) { barrier_wait(barrier, parity, file, line); }
inline void fence_async() { sm90_block().fence_async(); }

inline int cluster_rank() { return static_cast<int>(sm90_block().rank); }
inline uint32_t remote_address(uint32_t address, int rank, MVF_PLACE) {
  if (rank < 0 || rank >= static_cast<int>(sm90_block().cluster.size())) {
    throw emulated::Error("remote_address: expected a rank of a cluster of " +
                          std::to_string(sm90_block().cluster.size()) + " blocks, got " + std::to_string(rank) +
                          " at " + MVF_HERE.text());
  }
  return (address & ((1u << emulated::kRankBit) - 1)) | static_cast<uint32_t>(rank) << emulated::kRankBit;
}
inline void cluster_arrive(MVF_PLACE) {
  sm90_block().cluster.arrive(MVF_HERE);
  sm90_block().give_way();
}
inline void cluster_wait(MVF_PLACE) { sm90_block().cluster.wait(MVF_HERE); }
inline void cluster_sync(MVF_PLACE) { cluster_arrive(file, line), cluster_wait(file, line); }

}  // namespace mobilevit_fast::cuda
