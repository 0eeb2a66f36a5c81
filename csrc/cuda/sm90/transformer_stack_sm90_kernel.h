// The transformer stack of a MobileViT block for compute capability 9.0: 1x1 convolution in, layers, norm, 1x1
// convolution out, in one kernel.
//
// A block has two warpgroups of 64 tokens each, and a lane that loads weights. The residual stream of a warpgroup is
// the float32 accumulators of its products, in registers from the first convolution to the last: the projection and the
// end of the MLP add to it. Norms are computed in registers, where a row is four lanes'. Queries, weights of the
// softmax, context and hidden units go from accumulators to left operands within their lanes; normed rows, keys and
// values go through shared memory. Weights stream through a ring of slots, in the order of their use.
#pragma once

#include "launch_sm90.h"
#include "transformer_stack_sm90_pair.h"

namespace mobilevit_fast::cuda {

// Blocks are as many as multiprocessors, or as tiles of 128 tokens; in clusters of two where a sequence takes two
// tiles.
template <class T, class S>
class TransformerStackSm90 {
 public:
  using Params = MobileViTTransformerParams;
  static constexpr int kThreads = (kStackGroups + 1) * 128, kCluster = S::kPair ? 2 : 1, kRegisters = 0;

  static MVF_DEVICE void run(const Params& p) {
    const uint32_t memory = shared_memory_begin();
    if (thread_index() == 0) {
      constexpr int kWarps = kStackGroups * 4;
      for (int i = 0; i < S::kSlots; ++i) {
        barrier_init(memory + i * 8, 1), barrier_init(memory + (S::kSlots + i) * 8, kWarps);
      }
      for (int i = 0; i < 2; ++i) {
        barrier_init(memory + S::kValuesFull + i * 8, kStackGroups);
        barrier_init(memory + S::kValuesEmpty + i * 8, kCluster * kWarps);
      }
      barrier_init_fence();
      fence_async();
    }
    sync_block();
    if constexpr (S::kPair) cluster_sync();
    grid_launch_dependents();
    if (thread_index() >= kStackGroups * 128) {
      give_registers<24>();
      if (thread_index() == kStackGroups * 128) {
        const int tiles = ceil_div(p.tiles - block_index(), p.blocks);
        WeightLoader<S>(memory).run(p.stream, tiles);
      }
      sync_warp();
    } else {
      take_registers<240>();
      grid_wait();
      StackGroup<T, S>(p, memory, warp_uniform(thread_index() / 128)).run();
    }
    if constexpr (S::kPair) {
      sync_block();
      cluster_sync();  // nobody writes to a block that has ended
    }
  }

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.blocks); }
  static size_t shared_bytes(const Params&) { return S::kShared; }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const int64_t numbers = static_cast<int64_t>(p.batch) * p.height * p.width * S::kChannels;
    visit("x", p.x, numbers * static_cast<int64_t>(sizeof(T)));
    visit("y", p.y, numbers * static_cast<int64_t>(sizeof(T)));
    visit("packed", p.stream, static_cast<int64_t>(S::kStreamBytes));
  }
};

template <class T, bool kMasked>
cudaError_t launch_stack_sm90(const MobileViTTransformerParams& p, cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  with_stack_shape(p, [&](auto shape) {
    using Shape = typename decltype(shape)::Type;
    result = launch_sm90<TransformerStackSm90<T, std::conditional_t<kMasked, Masked<Shape>, Shape>>>(p, stream);
  });
  return result;
}

}  // namespace mobilevit_fast::cuda
