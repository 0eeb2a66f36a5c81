// The classifier head of few images: 1x1 expansion, mean over the pixels, linear layer. A cluster has an image; its
// blocks share out the expanded channels, send their means to each other, and share out the classes.
#pragma once

#include "small_head_sm90.h"
#include "small_parts_sm90.h"

namespace mobilevit_fast::cuda::few {

template <int kInputs_, int kExpanded_, int kBlocks_>
struct HeadShape {
  static constexpr int kInputs = kInputs_, kExpanded = kExpanded_, kBlocks = kBlocks_;
  static constexpr int kHere = kExpanded / kBlocks, kTiles = kHere / 8;  // of the expanded channels
  static constexpr int kPairs = ceil_div(kInputs, 32), kSteps = ceil_div(kInputs, 16);
  static constexpr int kMaxRows = 1024 / kBlocks;  // classes of a block
  static constexpr int kRowTiles = kSmallHeadPixels / 16, kParts = kWarps / kRowTiles;
  static constexpr int kAtScale = kTiles * kPairs * kFragment, kAtShift = kAtScale + kHere * 4;
  static constexpr int kAtSums = kAtShift + kHere * 4;  // of row tiles
  static constexpr int kAtMeans = round_up(kAtSums + kRowTiles * kHere * 4, 128);
  static constexpr int kAtBarriers = kAtMeans + kExpanded * 4, kAtWeight = round_up(kAtBarriers + 16, 128);
  static constexpr int kMaxShared = kAtWeight + kMaxRows * kExpanded * 2;
  static_assert(kExpanded % (8 * kBlocks) == 0 && kExpanded % 64 == 0 && kInputs % 16 == 0 && kHere % 4 == 0);
  static_assert(kMaxShared <= few::kMaxShared);

  static MVF_HOST_DEVICE int rows(int classes) { return ceil_div(classes, kBlocks); }  // of a block
};

template <class T, class S>
struct HeadKernel {
  using Params = SmallHeadParams;
  static constexpr int kThreads = few::kThreads, kCluster = S::kBlocks, kRegisters = 0;

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.batch * S::kBlocks); }
  static size_t shared_bytes(const Params& p) {
    return static_cast<size_t>(S::kAtWeight) + S::rows(p.classes) * S::kExpanded * 2;
  }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const size_t rows = static_cast<size_t>(S::rows(p.classes)) * S::kBlocks;
    visit("x", p.x, size_t{2} * p.batch * p.pixels * S::kInputs);
    visit("y", p.y, size_t{2} * p.batch * p.classes);
    visit("weight_expand", p.expand, size_t{S::kExpanded / 8 * S::kPairs * kFragment});
    visit("scale_expand", p.scale, S::kExpanded * sizeof(float));
    visit("bias_expand", p.shift, S::kExpanded * sizeof(float));
    visit("weight", p.weight, rows * S::kExpanded * 2);
    visit("bias", p.bias, rows * sizeof(float));
  }

  static MVF_DEVICE void run(const Params& p) {
    const uint32_t shared = shared_memory_begin(), loaded = shared + S::kAtBarriers, means = loaded + 8;
    const int slice = block_index() % S::kBlocks, image = block_index() / S::kBlocks;
    grid_launch_dependents();
    if (thread_index() == 0) load_weights(p, shared, slice);
    cluster_arrive();
    grid_wait();
    uint32_t a[S::kSteps][4];
    load_pixels(p, image, a);
    cluster_wait();  // all barriers are set up
    barrier_wait(loaded, 0);
    expand(p, shared, a);
    sync_block();
    send_means(p, shared, slice, means);
    barrier_wait_cluster(means, 0);
    classify(p, shared, slice, image);
  }

 private:
  static MVF_DEVICE int lane() { return thread_index() % kWarpSize; }
  static MVF_DEVICE int row_tile() { return thread_index() / kWarpSize % S::kRowTiles; }

  static MVF_DEVICE void load_weights(const Params& p, uint32_t shared, int slice) {
    const uint32_t loaded = shared + S::kAtBarriers;
    constexpr int kExpandBytes = S::kTiles * S::kPairs * kFragment, kVectorBytes = S::kHere * 4;
    const int rows = S::rows(p.classes), bytes = rows * S::kExpanded * 2;
    barrier_init(loaded, 1);
    barrier_init(loaded + 8, 1);
    barrier_init_fence();
    barrier_expect(loaded, kExpandBytes + 2 * kVectorBytes + bytes);
    copy_bulk(shared, p.expand + slice * (kExpandBytes / 16), kExpandBytes, loaded);
    copy_bulk(shared + S::kAtScale, p.scale + slice * S::kHere, kVectorBytes, loaded);
    copy_bulk(shared + S::kAtShift, p.shift + slice * S::kHere, kVectorBytes, loaded);
    copy_bulk(shared + S::kAtWeight, static_cast<const T*>(p.weight) + int64_t{1} * slice * rows * S::kExpanded, bytes,
              loaded);
    barrier_expect(loaded + 8, S::kExpanded * 4);
  }

  // The warp's 16 pixels as fragments, zeros beyond the last pixel.
  static MVF_DEVICE void load_pixels(const Params& p, int image, uint32_t (&a)[S::kSteps][4]) {
    const int first = row_tile() * 16 + lane() / 4;
    const T* x = static_cast<const T*>(p.x) + (int64_t{1} * image * p.pixels + first) * S::kInputs + lane() % 4 * 2;
    MVF_UNROLL
    for (int k = 0; k < S::kSteps; ++k) {
      MVF_UNROLL
      for (int e = 0; e < 4; ++e) {
        const bool there = first + e % 2 * 8 < p.pixels;
        a[k][e] = there ? load_result(words(x + e % 2 * 8 * S::kInputs + k * 16 + e / 2 * 8)) : 0u;
      }
    }
  }

  // Sums over a row tile's pixels of some of the block's channels; the warps of a row tile take turns.
  static MVF_DEVICE void expand(const Params& p, uint32_t shared, const uint32_t (&a)[S::kSteps][4]) {
    const int part = thread_index() / kWarpSize / S::kRowTiles;
    MVF_NO_UNROLL
    for (int tile = part; tile < S::kTiles; tile += S::kParts) {
      float c[4] = {};
      MVF_UNROLL
      for (int k = 0; k < S::kPairs; ++k) {
        const Bytes16 b = load_shared_at<Bytes16>(shared + (tile * S::kPairs + k) * kFragment + lane() * 16);
        multiply_words<T>(c, a[2 * k], b.word[0], b.word[1]);
        if (2 * k + 1 < S::kSteps) multiply_words<T>(c, a[2 * k + 1 < S::kSteps ? 2 * k + 1 : 0], b.word[2], b.word[3]);
      }
      const int column = tile * 8 + lane() % 4 * 2;
      const Float2 scale = load_shared_at<Float2>(shared + S::kAtScale + column * 4);
      const Float2 shift = load_shared_at<Float2>(shared + S::kAtShift + column * 4);
      Float2 sum{0.0f, 0.0f};
      MVF_UNROLL
      for (int half = 0; half < 2; ++half) {
        if (row_tile() * 16 + half * 8 + lane() / 4 >= p.pixels) continue;
        sum.x += silu(c[2 * half] * scale.x + shift.x), sum.y += silu(c[2 * half + 1] * scale.y + shift.y);
      }
      MVF_UNROLL
      for (int mask = 4; mask < kWarpSize; mask *= 2) {
        sum.x += shuffle_xor(sum.x, mask), sum.y += shuffle_xor(sum.y, mask);
      }
      if (lane() < 4) store_shared_at(shared + S::kAtSums + (row_tile() * S::kHere + column) * 4, sum);
    }
  }

  // Of the block's channels, to all blocks: four threads a channel.
  static MVF_DEVICE void send_means(const Params& p, uint32_t shared, int slice, uint32_t barrier) {
    for (int i = thread_index(); i < S::kHere * 4; i += kThreads) {
      const int channel = i % S::kHere;
      float sum = 0.0f;
      MVF_UNROLL
      for (int r = 0; r < S::kRowTiles; ++r) {
        sum += load_shared_at<float>(shared + S::kAtSums + (r * S::kHere + channel) * 4);
      }
      const uint32_t target = shared + S::kAtMeans + (slice * S::kHere + channel) * 4;
      const uint32_t mean = word_of(sum / static_cast<float>(p.pixels));
      MVF_UNROLL
      for (int rank = 0; rank < S::kBlocks; rank += 4) {
        const int to = rank + i / S::kHere;
        store_async(remote_address(target, to), mean, remote_address(barrier, to));
      }
    }
  }

  // A warp has a class at a time.
  static MVF_DEVICE void classify(const Params& p, uint32_t shared, int slice, int image) {
    Float2 mean[S::kExpanded / 64];
    MVF_UNROLL
    for (int i = 0; i < S::kExpanded / 64; ++i) {
      mean[i] = load_shared_at<Float2>(shared + S::kAtMeans + (i * kWarpSize + lane()) * 8);
    }
    const int rows = S::rows(p.classes);
    MVF_UNROLL_SOME
    for (int row = thread_index() / kWarpSize; row < rows; row += kWarps) {
      const int number = slice * rows + row;
      if (number >= p.classes) break;
      const uint32_t weight = shared + S::kAtWeight + (row * S::kExpanded + lane() * 2) * 2;
      float sum = 0.0f;
      MVF_UNROLL
      for (int i = 0; i < S::kExpanded / 64; ++i) {
        const Float2 w = unpack<T>(load_shared_at<uint32_t>(weight + i * kWarpSize * 4));
        sum += w.x * mean[i].x + w.y * mean[i].y;
      }
      MVF_UNROLL
      for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
      if (lane() == 0) {
        store_global(static_cast<T*>(p.y) + int64_t{1} * image * p.classes + number,
                     from_float<T>(sum + load_global(p.bias + number)));
      }
    }
  }
};

using HeadShapes = List<HeadShape<160, 640, 16>, HeadShape<96, 384, 16>, HeadShape<80, 320, 8>>;

// Calls visit(shape) with that of so many channels; false, calling nothing, where there is none.
template <class Visit, class... Shapes>
bool with_head_shape(int channels, int expanded, int classes, const Visit& visit, List<Shapes...>) {
  const auto fits = [&](auto shape) {
    using S = decltype(shape);
    return channels == S::kInputs && expanded == S::kExpanded && classes > 0 && S::rows(classes) <= S::kMaxRows;
  };
  return ((fits(Shapes()) && (visit(Shapes()), true)) || ...);
}

}  // namespace mobilevit_fast::cuda::few
