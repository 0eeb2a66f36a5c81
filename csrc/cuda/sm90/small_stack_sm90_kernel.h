// The transformer stack of few images: a cluster of up to 16 blocks has a sequence. Blocks share out the tokens, by
// groups, and the columns of every linear layer, by slices, so that a block reads a part of the weights, all ahead of
// time by bulk copies. Results go to the blocks that need them by store_async, which counts its bytes at the receiver's
// barrier, in the order of the matrix unit's fragments. A layer has five such exchanges: query, key and value; context;
// x; hidden units; x.
#pragma once

#include <type_traits>

#include "launch_sm90.h"
#include "small_stack_parts_sm90.h"

namespace mobilevit_fast::cuda::few {

// Parameters, and when chunks of weights come, which the kernel finds beside them in constant memory.
struct StackKernelParams : SmallStackParams {
  Schedule schedule;
};

template <class T, class S>
struct StackKernel {
  using Params = StackKernelParams;
  static constexpr int kThreads = S::kAllWarps * kWarpSize, kCluster = S::kCluster, kRegisters = 0;

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(4 * p.batch * S::kCluster); }
  static size_t shared_bytes(const Params&) { return S::kShared; }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const size_t bytes = size_t{2} * p.batch * p.height * p.width * S::kChannels;
    visit("x", p.x, bytes), visit("y", p.y, bytes);
    visit("weights", p.weights, size_t{S::kSlices} * p.schedule.all_bytes);
  }

  static MVF_DEVICE void run(const Params& p) {
    StackKernel block(p);
    grid_launch_dependents();
    block.begin();
    cluster_arrive();
    grid_wait();
    block.load_pixels();
    cluster_wait();  // all barriers are set up
    sync_block();
    barrier_wait(block.chunk_barrier(0), 0);
    block.template add_layer<0, typename S::In>(0, block.shared_ + S::kAtHidden);
    MVF_NO_UNROLL
    for (int layer = 0; layer < S::kLayers; ++layer) {
      const int chunk = 1 + 4 * layer;
      if (S::kGroups > 1) cluster_arrive();
      block.template normalise<1>(chunk);
      if (S::kGroups > 1) cluster_wait();  // nobody reads any more what lies where keys and values go
      block.project_heads(chunk);
      block.receive(block.heads_barrier(), layer & 1,
                    2 * (S::kRows * S::kHeadWidth + S::kTokens * (S::kHeadWidth + S::kHeadTiles * 8)));
      block.load_after(chunk);
      block.attend_head();
      block.wait_chunk(chunk + 1);
      block.receive(block.context_barrier(), layer & 1, S::kRows * S::kContext * 2);
      block.template add_layer<2, typename S::Proj>(chunk + 1, block.shared_ + S::kAtContext);
      block.template normalise<3>(chunk + 2);
      block.widen(chunk + 2);
      block.wait_chunk(chunk + 3);
      block.receive(block.hidden_barrier(), layer & 1, S::kRows * S::kHidden * 2);
      block.load_after(chunk + 2);
      block.template add_layer<4, typename S::Fc2>(chunk + 3, block.shared_ + S::kAtHidden);
    }
    block.template normalise<S::kLast>(S::kLast);
    block.store_outputs();
  }

 private:
  MVF_DEVICE explicit StackKernel(const Params& p) : p_(p), shared_(shared_memory_begin()) {
    const int rank = cluster_rank();
    slice_ = rank % S::kSlices, group_ = rank / S::kSlices, first_rank_ = group_ * S::kSlices;
    sequence_ = block_index() / S::kCluster, lane_ = thread_index() % kWarpSize, warp_ = thread_index() / kWarpSize;
    next_ = p.schedule.first, x_parity_ = own_parity_ = 0;
  }

  // Barriers in shared memory: of chunks, and of the four things that blocks send each other.
  MVF_DEVICE uint32_t chunk_barrier(int chunk) const { return shared_ + S::kAtBarriers + chunk * 8; }
  MVF_DEVICE uint32_t x_barrier() const { return chunk_barrier(S::kChunks); }
  MVF_DEVICE uint32_t heads_barrier() const { return chunk_barrier(S::kChunks + 1); }
  MVF_DEVICE uint32_t context_barrier() const { return chunk_barrier(S::kChunks + 2); }
  MVF_DEVICE uint32_t hidden_barrier() const { return chunk_barrier(S::kChunks + 3); }

  MVF_DEVICE void load(int chunk) const {
    const Schedule& s = p_.schedule;
    const int64_t source = int64_t{1} * slice_ * s.all_bytes + s.source[chunk];
    barrier_expect(chunk_barrier(chunk), s.bytes[chunk]);
    copy_bulk(shared_ + s.target[chunk], p_.weights + source / 16, s.bytes[chunk], chunk_barrier(chunk));
  }
  // Asks for the chunks whose room is free once chunk `done` is done with by all warps.
  MVF_DEVICE void load_after(int done) {
    if (thread_index() != 0) return;
    for (; next_ < S::kChunks && p_.schedule.after[next_] <= done; ++next_) load(next_);
  }
  MVF_DEVICE void wait_chunk(int chunk) const { barrier_wait(chunk_barrier(chunk), 0); }
  MVF_DEVICE uint32_t chunk_at(int chunk) const { return shared_ + p_.schedule.target[chunk]; }

  // Until so many bytes have come, which may be before or after this is called.
  MVF_DEVICE void receive(uint32_t barrier, int parity, int bytes) const {
    if (thread_index() == 0) barrier_expect(barrier, bytes);
    barrier_wait_cluster(barrier, parity);
  }

  // A thread for each barrier, and for each of the chunks that come first: one for all would take 3000 cycles.
  MVF_DEVICE void begin() const {
    static_assert(S::kChunks + 4 <= kWarpSize);
    const int i = thread_index();
    if (i >= S::kChunks + 4) return;
    barrier_init(chunk_barrier(i), 1);
    barrier_init_fence();
    if (i < p_.schedule.first) load(i);
  }

  MVF_DEVICE bool exists(int row) const { return !S::kMasked || group_ * S::kRows + row < p_.tokens; }

  // Of a token's row in the group: patches of 2x2 pixels, a sequence for each of a patch's places.
  MVF_DEVICE int64_t pixel(int row) const {
    int token = group_ * S::kRows + row;
    if (S::kMasked && token >= p_.tokens) token = p_.tokens - 1;
    const int image = sequence_ / 4, place = sequence_ % 4, across = p_.width / 2;
    return (int64_t{1} * image * p_.height + 2 * (token / across) + place / 2) * p_.width + 2 * (token % across) +
           place % 2;
  }

  // The group's pixels as fragments, where hidden units will lie.
  MVF_DEVICE void load_pixels() const {
    constexpr int kSteps = S::kChannels / 16;
    for (int i = thread_index(); i < S::kRowTiles * kSteps * kWarpSize; i += kThreads) {
      const int lane = i % kWarpSize, step = i / kWarpSize % kSteps, row = i / (kWarpSize * kSteps) * 16 + lane / 4;
      const T* first = static_cast<const T*>(p_.x) + pixel(row) * S::kChannels + step * 16 + lane % 4 * 2;
      const T* second = static_cast<const T*>(p_.x) + pixel(row + 8) * S::kChannels + step * 16 + lane % 4 * 2;
      const Bytes16 f{{load_result(words(first)), load_result(words(second)), load_result(words(first + 8)),
                       load_result(words(second + 8))}};
      store_shared_at(shared_ + S::kAtHidden + i * 16, f);
    }
  }

  // Two of the block's columns, from column `tile` * 8 on, of the lane.
  template <int kChunk>
  MVF_DEVICE Float2 bias_at(uint32_t at, int tile) const {
    return load_shared_at<Float2>(at + S::weight_bytes(kChunk) + (tile * 8 + lane_ % 4 * 2) * 4);
  }

  MVF_DEVICE auto fragments(uint32_t at, int steps) const {
    const int lane = lane_;
    return [=](int row_tile, int step, uint32_t (&f)[4]) {
      const Bytes16 v = load_shared_at<Bytes16>(at + ((row_tile * steps + step) * kWarpSize + lane) * 16);
      MVF_UNROLL
      for (int e = 0; e < 4; ++e) f[e] = v.word[e];
    };
  }

  static MVF_DEVICE int clipped(int tiles, int rest) { return rest < tiles ? (rest > 0 ? rest : 0) : tiles; }

  // A layer whose result is added to x, or, for chunk 0, x begins with. kChunk is a chunk of the same kind.
  template <int kChunk, class Split>
  MVF_DEVICE void add_layer(int chunk, uint32_t input) {
    const uint32_t at = chunk_at(chunk), x = shared_ + S::kAtX, own = shared_ + S::kAtOwn;
    const uint32_t from = own + own_parity_ * S::kOwnBytes, to = own + (own_parity_ ^ 1) * S::kOwnBytes;
    const auto value = [&](int tile, int r, const float (&sums)[4], Float2 bias) {
      float v[4] = {sums[0] + bias.x, sums[1] + bias.y, sums[2] + bias.x, sums[3] + bias.y};
      const int offset = ((tile * S::kRowTiles + r) * kWarpSize + lane_) * 8;
      if (kChunk != 0) {
        const int column = slice_ * S::kTiles + tile;
        const uint32_t place = x + ((r * S::kDSteps + column / 2) * kWarpSize + lane_) * 16 + column % 2 * 8;
        const Bytes8 before = load_shared_at<Bytes8>(S::kOwnBytes > 0 ? from + offset : place);
        const Float2 upper = unpack<T>(before.word[0]), lower = unpack<T>(before.word[1]);
        v[0] += upper.x, v[1] += upper.y, v[2] += lower.x, v[3] += lower.y;
      }
      const Bytes8 w{{pack<T>(v[0], v[1]), pack<T>(v[2], v[3])}};
      if (S::kOwnBytes > 0) store_shared_at(to + offset, w);
      return w;
    };
    const auto put = [&](int tile, int r, const Bytes8(&w)[2], int part, int parts) {
      send(w, x + r * S::kDSteps * kFragment, slice_ * S::kTiles + tile, x_barrier(), first_rank_, S::kSlices, 1, part,
           parts);
    };
    constexpr int kSteps = S::steps(kChunk);
    multiply_fragments<T, S::kRowTiles, S::kTiles, kSteps, Split, S::kReduce>(
        fragments(input, kSteps), at, shared_ + S::kAtReduce + S::kReduce,
        clipped(S::kTiles, S::kPadded / 8 - slice_ * S::kTiles), [&](int tile) { return bias_at<kChunk>(at, tile); },
        value, put);
    own_parity_ ^= 1;
  }

  // The norm before a chunk; the chunk before it is done with once x has come.
  template <int kChunk>
  MVF_DEVICE void normalise(int chunk) {
    if (thread_index() == 0) barrier_expect(x_barrier(), S::kRows * S::kPadded * 2);
    wait_chunk(chunk);
    const auto wait = [&] {
      barrier_wait_cluster(x_barrier(), x_parity_), x_parity_ ^= 1;
      load_after(chunk - 1);
    };
    norm<T, S>(shared_ + S::kAtX, shared_ + S::kAtNormed, shared_ + S::kAtStats, chunk_at(chunk) + S::at_norm(kChunk),
               p_.eps, wait);
  }

  // Query, key and value. The blocks of a head need its queries and keys, those of the group or of all groups; a
  // value's columns only the blocks of the slice.
  MVF_DEVICE void project_heads(int chunk) const {
    const uint32_t at = chunk_at(chunk);
    const int first_slice = slice_ / S::kPerHead * S::kPerHead, head_tile = slice_ % S::kPerHead * S::kHeadTiles;
    const auto value = [&](int tile, int, const float (&sums)[4], Float2 bias) {
      const uint32_t upper = pack<T>(sums[0] + bias.x, sums[1] + bias.y);
      const uint32_t lower = pack<T>(sums[2] + bias.x, sums[3] + bias.y);
      if (tile < 2 * S::kHeadTiles) return Bytes8{{upper, lower}};
      return Bytes8{{transpose_matrix(upper), transpose_matrix(lower)}};
    };
    const auto put = [&](int tile, int r, const Bytes8(&w)[2], int part, int parts) {
      const int kind = tile / S::kHeadTiles, column = head_tile + tile % S::kHeadTiles;
      const uint32_t tokens = (group_ * S::kRowTiles + r) * S::kHeadSteps * kFragment;
      if (kind == 0) {
        send(w, shared_ + S::kAtQuery + r * S::kHeadSteps * kFragment, column, heads_barrier(),
             first_rank_ + first_slice, S::kPerHead, 1, part, parts);
      } else if (kind == 1 && S::kPerHead > 1) {
        for (int i = 0; i < S::kGroups; ++i) {
          send(w, shared_ + S::kAtKey + tokens, column, heads_barrier(), i * S::kSlices + first_slice, S::kPerHead, 1,
               part, parts);
        }
      } else {
        send(w, shared_ + (kind == 1 ? S::kAtKey : S::kAtValue) + tokens, column, heads_barrier(), slice_, S::kGroups,
             S::kSlices, part, parts);
      }
    };
    multiply_fragments<T, S::kRowTiles, S::kQkvTiles, S::steps(1), typename S::Qkv, S::kReduce>(
        fragments(shared_ + S::kAtNormed, S::kDSteps), at, shared_ + S::kAtReduce, S::kQkvTiles,
        [&](int tile) { return bias_at<1>(at, tile); }, value, put);
  }

  // A warp has a row tile's context, some tiles of its columns; of many keys two warps have one half each.
  MVF_DEVICE void attend_head() const {
    constexpr int kColumnTiles = S::kAttendTiles, kParts = S::kHeadTiles / kColumnTiles;
    constexpr int kKeyParts = S::kManyKeys ? 2 : 1, kKeys = S::kTokens / kKeyParts, kUnits = S::kRowTiles * kParts;
    static_assert(kUnits * kKeyParts <= S::kAllWarps && S::kHeadTiles % kColumnTiles == 0 && kColumnTiles % 2 == 0);
    const int r = warp_ % S::kRowTiles, part = warp_ / S::kRowTiles % kParts, key_part = warp_ / kUnits;
    const int tile = slice_ % S::kPerHead * S::kHeadTiles + part * kColumnTiles;
    float out[kColumnTiles][4], most[2], sum[2];
    if (key_part < kKeyParts) {
      const uint32_t first = key_part * (kKeys / 16) * S::kHeadSteps * kFragment;
      attend<T, kKeys, S::kHeadSteps, kColumnTiles, S::kMasked>(
          shared_ + S::kAtQuery + r * S::kHeadSteps * kFragment, shared_ + S::kAtKey + first,
          shared_ + S::kAtValue + first, tile, p_.tokens - key_part * kKeys, p_.score_scale, out, most, sum);
    }
    if (kKeyParts > 1) add_second_half(r, key_part, out, most, sum);
    if (key_part != 0) return;
    const float inverse[2] = {reciprocal_approximate(sum[0]), reciprocal_approximate(sum[1])};
    const int column = slice_ / S::kPerHead * (S::kHeadWidth / 8) + tile;
    MVF_UNROLL
    for (int c = 0; c < kColumnTiles; c += 2) {
      Bytes8 w[2];
      MVF_UNROLL
      for (int e = 0; e < 2; ++e) {
        const float (&v)[4] = out[c + e];
        w[e] = {{pack<T>(v[0] * inverse[0], v[1] * inverse[0]), pack<T>(v[2] * inverse[1], v[3] * inverse[1])}};
      }
      send(w, shared_ + S::kAtContext + r * (S::kContext / 16) * kFragment, column + c, context_barrier(), first_rank_,
           S::kSlices, 1, 0, 1);
    }
  }

  // Warps of the second half of the keys hand over what they have, where normed tokens were.
  MVF_DEVICE void add_second_half(int r, int key_part, float (&out)[S::kAttendTiles][4], float (&most)[2],
                                  float (&sum)[2]) const {
    constexpr int kNumbers = S::kAttendTiles * 4 + 4;
    static_assert(!S::kManyKeys || S::kRowTiles * kNumbers * 128 <= S::kAtContext - S::kAtNormed);
    const auto place = [&](int number) {
      return shared_ + S::kAtNormed + ((r * kNumbers + number) * kWarpSize + lane_) * 4;
    };
    if (key_part == 1) {
      MVF_UNROLL
      for (int i = 0; i < S::kAttendTiles * 4; ++i) store_shared_at(place(4 + i), out[i / 4][i % 4]);
      MVF_UNROLL
      for (int e = 0; e < 2; ++e) store_shared_at(place(e), most[e]), store_shared_at(place(2 + e), sum[e]);
    }
    sync_block();
    if (key_part != 0) return;
    MVF_UNROLL
    for (int e = 0; e < 2; ++e) {
      const float other = load_shared_at<float>(place(e)), both = maximum(most[e], other);
      const float mine = exp2_approximate((most[e] - both) * p_.score_scale);
      const float theirs = exp2_approximate((other - both) * p_.score_scale);
      sum[e] = sum[e] * mine + load_shared_at<float>(place(2 + e)) * theirs;
      MVF_UNROLL
      for (int c = 0; c < S::kAttendTiles; ++c) {
        MVF_UNROLL
        for (int i = 2 * e; i < 2 * e + 2; ++i) {
          out[c][i] = out[c][i] * mine + load_shared_at<float>(place(4 + c * 4 + i)) * theirs;
        }
      }
    }
  }

  // The first layer of the MLP.
  MVF_DEVICE void widen(int chunk) const {
    const uint32_t at = chunk_at(chunk);
    const auto value = [&](int, int, const float (&sums)[4], Float2 bias) {
      return Bytes8{{pack<T>(silu(sums[0] + bias.x), silu(sums[1] + bias.y)),
                     pack<T>(silu(sums[2] + bias.x), silu(sums[3] + bias.y))}};
    };
    const auto put = [&](int tile, int r, const Bytes8(&w)[2], int part, int parts) {
      send(w, shared_ + S::kAtHidden + r * (S::kHidden / 16) * kFragment, slice_ * S::kHiddenTiles + tile,
           hidden_barrier(), first_rank_, S::kSlices, 1, part, parts);
    };
    multiply_fragments<T, S::kRowTiles, S::kHiddenTiles, S::steps(3), typename S::Fc1, S::kReduce>(
        fragments(shared_ + S::kAtNormed, S::kDSteps), at, shared_ + S::kAtReduce,
        clipped(S::kHiddenTiles, S::kHidden / 8 - slice_ * S::kHiddenTiles),
        [&](int tile) { return bias_at<3>(at, tile); }, value, put);
  }

  // The convolution out.
  MVF_DEVICE void store_outputs() const {
    const uint32_t at = chunk_at(S::kLast);
    const auto value = [&](int tile, int, const float (&sums)[4], Float2 bias) {
      const Float2 scale = bias_at<S::kLast>(at, S::kOutTiles + tile);  // behind the biases
      return Bytes8{{pack<T>(silu(sums[0] * scale.x + bias.x), silu(sums[1] * scale.y + bias.y)),
                     pack<T>(silu(sums[2] * scale.x + bias.x), silu(sums[3] * scale.y + bias.y))}};
    };
    const auto put = [&](int tile, int r, const Bytes8(&w)[2], int part, int) {
      if (part != 0) return;
      const int row = r * 16 + lane_ / 4;
      MVF_UNROLL
      for (int e = 0; e < 2; ++e) {
        const int column = (slice_ * S::kOutTiles + tile + e) * 8 + lane_ % 4 * 2;
        MVF_UNROLL
        for (int half = 0; half < 2; ++half) {
          if (!exists(row + 8 * half)) continue;
          store_global(words(static_cast<T*>(p_.y) + pixel(row + 8 * half) * S::kChannels + column), w[e].word[half]);
        }
      }
    };
    multiply_fragments<T, S::kRowTiles, S::kOutTiles, S::steps(S::kLast), typename S::Out, S::kReduce>(
        fragments(shared_ + S::kAtNormed, S::kDSteps), at, shared_ + S::kAtReduce + S::kReduce,
        clipped(S::kOutTiles, S::kChannels / 8 - slice_ * S::kOutTiles),
        [&](int tile) { return bias_at<S::kLast>(at, tile); }, value, put);
  }

  const Params& p_;
  const uint32_t shared_;
  int slice_, group_, first_rank_, sequence_, lane_, warp_;
  int next_;  // the chunk to ask for next
  int x_parity_, own_parity_;
};

// Launches the kernel of a size over elements T; cudaErrorInvalidValue where there is none.
template <class T, bool kMasked>
cudaError_t launch_small_stack(SmallStackSize size, const SmallStackParams& params, cudaStream_t stream) {
  cudaError_t status = cudaErrorInvalidValue;
  const auto start = [&](auto shape) {
    using S = decltype(shape);
    constexpr Schedule kSchedule = schedule<S>();
    StackKernelParams all;
    static_cast<SmallStackParams&>(all) = params, all.schedule = kSchedule;
    status = launch_sm90<StackKernel<T, std::conditional_t<kMasked, Masked<S>, S>>>(all, stream);
  };
  with_stack_shape(size, start, StackShapes());
  return status;
}

}  // namespace mobilevit_fast::cuda::few
