// A kernel for compute capability 9.0 that a producer feeds through a ring of copies, and what can go wrong in it. Each
// fault is one that hardware lets pass most of the time.
#pragma once

#include "cuda/sm90/launch_sm90.h"
#include "cuda/sm90/wgmma.h"

namespace mobilevit_fast::cuda {

enum class Sm90Fault {
  none,
  factor_without_fence,  // stored, then read by wgmma
  result_without_fence,  // stored, then read by a bulk store
  sums_read_early,       // before wgmma_wait
  sums_without_fence,    // no wgmma_fence before a product
  products_not_waited_for,
  lanes_disagree,        // one lane multiplies another matrix
  warps_missing,         // three warps multiply
  factor_overwritten,    // while a product reads it
  piece_released_early,  // while a product reads it
  piece_read_early,      // while its copy is in flight
  result_overwritten,    // while a bulk store reads it
  expects_too_much,
  expects_too_little,
  too_many_arrivals,
  init_without_fence,
  barrier_overwritten,
  store_left_in_flight,
  named_barrier_of_two_sizes,
  registers_beyond_the_block,
  no_grid_wait,
  moved_load,  // a load that the compiler may move to before grid_wait
  outside_of_shared_memory,
  remote_after_the_end,
  remote_not_waited_for,
};

struct PipelineParams {
  const void* from;
  const void* weight;
  void* to;
  int64_t from_bytes, weight_bytes, to_bytes;
  Sm90Fault fault;
};

// Every block: to (64, 8) floats = the sum over kPieces of from[piece] (64, 16) weight (8, 16)^T, in float16. Matrices
// are made of parts of 8x8 elements, those of equal depth after one another. Then each block gives its first sum to its
// neighbour, which adds it to its own.
// kPlanted: whether `fault` counts.
template <bool kPlanted>
struct Pipeline {
  using Params = PipelineParams;
  static constexpr int kThreads = 256, kCluster = 2, kRegisters = 128, kPieces = 6, kStages = 2, kPieceBytes = 2048;
  static constexpr int kFactor = kStages * kPieceBytes, kResult = kFactor + 256, kGift = kResult + 2048;
  static constexpr int kFull = kGift + 16, kEmpty = kFull + 8 * kStages, kGiven = kEmpty + 8 * kStages;

  static unsigned blocks(const Params&) { return 4; }
  static size_t shared_bytes(const Params&) { return kGiven + 16; }
  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    visit("from", p.from, p.from_bytes);
    visit("weight", p.weight, p.weight_bytes);
    visit("to", p.to, p.to_bytes);
  }

  static MVF_DEVICE bool has(const Params& p, Sm90Fault fault) { return kPlanted && p.fault == fault; }

  static MVF_DEVICE void run(const Params& p) {
    const uint32_t shared = shared_memory_begin();
    const int thread = thread_index();
    if (thread == 0) {
      for (int i = 0; i < kStages; ++i)
        barrier_init(shared + kFull + 8 * i, 1), barrier_init(shared + kEmpty + 8 * i, 4);
      barrier_init(shared + kGiven, 1);
      if (!has(p, Sm90Fault::init_without_fence)) barrier_init_fence();
      barrier_expect(shared + kGiven, 4);
    }
    for (int i = thread; i < 64; i += kThreads) {
      store_shared_at(shared + kFactor + 4 * i, load_global(static_cast<const uint32_t*>(p.weight) + i));
    }
    if (!has(p, Sm90Fault::factor_without_fence)) fence_async();
    cluster_sync();
    if (has(p, Sm90Fault::barrier_overwritten) && thread == 5) store_shared_at(shared + kFull, 0u);
    if (!has(p, Sm90Fault::no_grid_wait)) grid_wait();
    if (has(p, Sm90Fault::moved_load)) load_global(static_cast<const uint32_t*>(p.from) + thread);
    if (thread >= 128) {
      produce(p, shared, thread - 128);
    } else {
      consume(p, shared, thread);
    }
    if (has(p, Sm90Fault::remote_after_the_end) && cluster_rank() == 0) return;
    finish(p, shared, thread);
  }

  static MVF_DEVICE void produce(const Params& p, uint32_t shared, int lane) {
    give_registers<40>();
    if (lane != 0) return;
    for (int piece = 0; piece < kPieces; ++piece) {
      const int stage = piece % kStages, round = piece / kStages;
      const uint32_t full = shared + kFull + 8 * stage;
      barrier_wait(shared + kEmpty + 8 * stage, round % 2 ^ 1);
      const int more = has(p, Sm90Fault::expects_too_much) ? 16 : has(p, Sm90Fault::expects_too_little) ? -16 : 0;
      barrier_expect(full, kPieceBytes + (piece == kPieces - 1 ? more : 0));
      copy_bulk(shared + stage * kPieceBytes, static_cast<const char*>(p.from) + piece * kPieceBytes, kPieceBytes,
                full);
    }
  }

  static MVF_DEVICE void consume(const Params& p, uint32_t shared, int thread) {
    if (has(p, Sm90Fault::registers_beyond_the_block)) {
      take_registers<240>();
    } else {
      take_registers<208>();
    }
    float sums[4] = {}, first = 0;
    uint32_t read = 0;
    for (int piece = 0; piece < kPieces; ++piece) {
      const int stage = piece % kStages, round = piece / kStages;
      const uint32_t from = shared + stage * kPieceBytes, empty = shared + kEmpty + 8 * stage;
      const bool early = has(p, Sm90Fault::piece_read_early) && piece == 1;
      if (early) read += load_shared_at<uint32_t>(from + 4 * thread);
      barrier_wait(shared + kFull + 8 * stage, round % 2);
      if (!has(p, Sm90Fault::sums_without_fence) || piece == 0) wgmma_fence();
      const bool other = has(p, Sm90Fault::lanes_disagree) && thread == 7;
      const uint64_t left = matrix_descriptor(from + (other ? 128 : 0), 1024, 128, kNoSwizzle);
      const uint64_t right = matrix_descriptor(shared + kFactor, 128, 128, kNoSwizzle);
      const bool idle = has(p, Sm90Fault::warps_missing) && thread < 32;
      if (!idle) Wgmma<Half, 8>::ss(sums, left, right, piece > 0);
      wgmma_commit();
      if (has(p, Sm90Fault::factor_overwritten) && thread == 40) store_shared_at(shared + kFactor, read);
      if (has(p, Sm90Fault::sums_read_early)) first = sums[0];
      const bool released = has(p, Sm90Fault::piece_released_early);
      if (released && thread % 32 == 0) barrier_arrive(empty);
      if (!has(p, Sm90Fault::products_not_waited_for)) wgmma_wait<0>();
      keep(sums);
      if (!released && thread % 32 == 0) barrier_arrive(empty);
      if (has(p, Sm90Fault::too_many_arrivals) && thread == 1) barrier_arrive(empty);
    }
    const int row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      store_shared_at(shared + kResult + ((row + i / 2 * 8) * 8 + column + i % 2) * 4, sums[i]);
    }
    if (thread == 0) {
      const int other = cluster_rank() ^ 1;
      if (!has(p, Sm90Fault::sums_read_early)) first = sums[0];
      store_async(remote_address(shared + kGift, other), bits_of(first), remote_address(shared + kGiven, other));
    }
  }

  static MVF_DEVICE uint32_t bits_of(float number) {
    union {
      float number;
      uint32_t bits;
    } both{number};
    return both.bits;
  }

  static MVF_DEVICE void finish(const Params& p, uint32_t shared, int thread) {
    if (!has(p, Sm90Fault::result_without_fence)) fence_async();
    const bool two = has(p, Sm90Fault::named_barrier_of_two_sizes) && thread >= 128;
    named_barrier_sync(1, two ? 160 : kThreads);
    if (has(p, Sm90Fault::remote_after_the_end) && thread == 0) {
      store_async(remote_address(shared + kGift + 8, 0), 0u, remote_address(shared + kGiven, 0));
    }
    if (thread == 32) {
      if (!has(p, Sm90Fault::remote_not_waited_for)) barrier_wait_cluster(shared + kGiven, 0);
      const uint32_t place = has(p, Sm90Fault::outside_of_shared_memory) ? shared + kGiven + 16 : shared + kResult;
      const float sum = load_shared_at<float>(place) + load_shared_at<float>(shared + kGift);
      store_shared_at(shared + kResult, sum);
      fence_async();
      store_bulk(static_cast<char*>(p.to) + block_index() * 2048, shared + kResult, 2048);
      store_bulk_commit();
      if (has(p, Sm90Fault::result_overwritten)) store_shared_at(shared + kResult, 0u);
      if (!has(p, Sm90Fault::store_left_in_flight)) store_bulk_wait<0>();
    }
    if (!has(p, Sm90Fault::remote_after_the_end)) cluster_sync();
  }
};

// How one thread waits for the phases of a barrier that another one ends.
enum class PhaseFault { none, missed, taken_twice, overtaken };
struct PhaseParams {
  PhaseFault fault;
};
struct Phases {
  using Params = PhaseParams;
  static constexpr int kThreads = 64, kCluster = 1, kRegisters = 0;

  static unsigned blocks(const Params&) { return 1; }
  static size_t shared_bytes(const Params&) { return 16; }
  template <class Visit>
  static void arrays(const Params&, const Visit&) {}

  static MVF_DEVICE void run(const Params& p) {
    const uint32_t barrier = shared_memory_begin();
    const int thread = thread_index();
    if (thread == 0) barrier_init(barrier, 1);
    sync_block();
    for (int phase = 0; phase < 4; ++phase) {
      if (thread == 32) barrier_arrive(barrier);
      if (thread == 0 && !(p.fault == PhaseFault::missed && phase == 1)) barrier_wait(barrier, phase % 2);
      if (p.fault == PhaseFault::taken_twice && phase == 2 && thread == 0) barrier_wait(barrier, phase % 2);
      if (p.fault != PhaseFault::overtaken) sync_block();
    }
  }
};

}  // namespace mobilevit_fast::cuda
