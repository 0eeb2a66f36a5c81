// What kernels for compute capability 9.0 use of the device beyond cuda/device.h: warpgroup products (wgmma),
// mbarriers, bulk and tensor copies, clusters. Compiled by nvcc for sm_90a it is inline PTX; with
// MVF_EMULATED the same names run on the CPU, as emulator/emulated_sm90.h defines them.
//
// Shared memory is one array of a block, and a place in it a 32-bit address: what `shared_address` gives, or, of
// another block of the cluster, `remote_address`. Kernels load and store it by the functions here alone, so that the
// emulator sees every access. PTX ISA 8.0, "Asynchronous warpgroup level matrix instructions", "mbarrier",
// "cp.async.bulk".
#pragma once

#include "cuda/addresses.h"
#include "tensor_map.h"

namespace mobilevit_fast::cuda {

// Bits 62 and 63 of a matrix descriptor, and what a tensor copy does to what it writes.
enum Swizzle : int { kNoSwizzle = 0, kSwizzle128 = 1, kSwizzle64 = 2, kSwizzle32 = 3 };

// A matrix in shared memory as an operand of wgmma; offsets are in bytes. In a cluster, addresses have the block's rank
// in bits 24 and up, which a descriptor leaves out.
MVF_HOST_DEVICE constexpr uint64_t matrix_descriptor(uint32_t address, int leading, int stride, int swizzle) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(stride >> 4) << 32 | static_cast<uint64_t>(swizzle) << 62;
}

}  // namespace mobilevit_fast::cuda

#if defined(MVF_EMULATED)

#include "emulated_sm90.h"

#elif defined(__CUDACC__)

namespace mobilevit_fast::cuda {

// --- Matrices in shared memory ---------------------------------------------------------------------------------------

// The counterparts of load_matrix_at and load_matrix_transposed_at in device.h: four 8x8 matrices.
MVF_DEVICE void store_matrix_at(uint32_t row, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]), "r"(r[1]),
               "r"(r[2]), "r"(r[3])
               : "memory");
}
MVF_DEVICE void store_matrix_transposed_at(uint32_t row, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]),
               "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}

// --- Warpgroups ------------------------------------------------------------------------------------------------------

// Before the first product of a chain, after accumulators or factors in registers were written; closes a group; waits
// for all groups but the last kLeft.
MVF_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
MVF_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kLeft>
MVF_DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
// The compiler neither moves uses of accumulators to before this, nor changes to after it. Those of a new chain begin
// as zeros in the source, although the first product does not add to them: of two chains on the same uninitialised
// variables ptxas 13.0 takes the second for the first one.
template <int kCount>
MVF_DEVICE void keep(float (&sums)[kCount]) {
  MVF_UNROLL
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}
// Left operands are complete: without this some would be computed behind wgmma_fence, and ptxas would wait for every
// product.
template <int kSteps>
MVF_DEVICE void keep(uint32_t (&words)[kSteps][4]) {
  MVF_UNROLL
  for (int i = 0; i < 4 * kSteps; ++i) asm volatile("" : "+r"(words[i / 4][i % 4])::"memory");
}
// Registers of a warpgroup's threads, up to what the block was launched with in all: beyond it `take` waits for ever.
template <int kRegisters>
MVF_DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
MVF_DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
// Barriers 1 to 15 of so many threads; `arrive` does not wait.
MVF_DEVICE void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
MVF_DEVICE void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// --- Barriers in shared memory, 8 bytes each -------------------------------------------------------------------------

MVF_DEVICE void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After all inits of a block, before other threads and copies use them.
MVF_DEVICE void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// Arrives and adds to the bytes that the phase waits for.
MVF_DEVICE void barrier_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
MVF_DEVICE void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// At the barrier of another block, by its remote_address: says that this thread has ended reading, since it releases
// no writes to global memory.
MVF_DEVICE void barrier_arrive_remote(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Until the phase of this parity has ended; the first phase has parity 0.
MVF_DEVICE void barrier_wait(uint32_t barrier, int parity) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra done;\n"
      "bra again;\ndone:\n}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// The same where what it waits for came from other blocks' stores.
MVF_DEVICE void barrier_wait_cluster(uint32_t barrier, int parity) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], %1;\n@p bra done;\n"
      "bra again;\ndone:\n}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// This thread's stores to shared memory become visible to wgmma and to bulk copies.
MVF_DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// --- Bulk copies: bytes and addresses are multiples of 16
// -------------------------------------------------------------

MVF_DEVICE void copy_bulk(uint32_t to, const void* from, int bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
// To shared memory of another block of the cluster, whose barrier counts the bytes; both by remote_address.
MVF_DEVICE void copy_bulk_remote(uint32_t to, uint32_t from, int bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "r"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
// A box of an image batch (tensor_map.h), its first channel, column, row and image; zeros where it lies outside, which
// count as bytes.
MVF_DEVICE void copy_tile(uint32_t to, const TensorMap* map, int channel, int column, int row, int image,
                          uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], "
      "[%6];" ::"r"(to),
      "l"(map), "r"(channel), "r"(column), "r"(row), "r"(image), "r"(barrier)
      : "memory");
}
MVF_DEVICE void prefetch_map(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }
MVF_DEVICE void store_tile(const TensorMap* map, uint32_t from, int channel, int column, int row, int image) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
               "r"(from), "r"(channel), "r"(column), "r"(row), "r"(image)
               : "memory");
}
MVF_DEVICE void store_bulk(void* to, uint32_t from, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes)
               : "memory");
}
MVF_DEVICE void store_bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until shared memory has been read by all but the last groups.
template <int kLeft>
MVF_DEVICE void store_bulk_wait() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kLeft) : "memory");
}

// --- Clusters --------------------------------------------------------------------------------------------------------

MVF_DEVICE int cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}
// The same place in the shared memory of another block.
MVF_DEVICE uint32_t remote_address(uint32_t address, int rank) {
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
MVF_DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
MVF_DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
MVF_DEVICE void cluster_sync() { cluster_arrive(), cluster_wait(); }
// Into another block, whose barrier counts the bytes; both by remote_address.
MVF_DEVICE void store_async(uint32_t address, uint32_t v, uint32_t barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(address), "r"(v),
               "r"(barrier)
               : "memory");
}
MVF_DEVICE void store_async(uint32_t address, Bytes8 v, uint32_t barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::"r"(address),
               "r"(v.word[0]), "r"(v.word[1]), "r"(barrier)
               : "memory");
}
MVF_DEVICE void store_async(uint32_t address, Bytes16 v, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(address),
      "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3]), "r"(barrier)
      : "memory");
}

}  // namespace mobilevit_fast::cuda

#endif
