// Inverted residual by whole rows: a warp has 16 or 32 expanded channels for good, their weights in registers, and goes
// down the images row by row, full width, so that no pixel is expanded twice. Of what it convolves, two rows wait in
// registers. Convolved rows go to a tile of 64 pixels and all channels in shared memory; while the warps fill the next,
// a warpgroup projects it by wgmma. Of a phased kernel all warps project, weights from the second-level cache: where
// they are larger than shared memory.
//
// In products, rows 0 to 7 are the even pixels of 16 columns and rows 8 to 15 the odd ones. So a lane's accumulators
// are two neighbouring pixels of two channels, and the other columns of its windows are those of the lanes four before
// and after it.
//
// Rows of all images are one sequence, of which a block takes a range that may begin and end inside of images.
#pragma once

#include <type_traits>

#include "cuda/sizes.h"
#include "rows_sm90.h"
#include "rows_sm90_expansion.h"
#include "wgmma.h"

namespace mobilevit_fast::cuda {

// kC, kE, kO: channels of the input, expanded, of the result. kRowsAhead: rows of input that shared memory holds.
template <int kC, int kE, int kO, int kWidth, int kStride, int kRowsAhead, bool kAllProject = false>
struct Rows {
  using Params = RowsParams;
  static constexpr int kChannels = kC, kExpanded = kE, kOutputs = kO, kRowWidth = kWidth, kStep = kStride;
  static constexpr int kRing = kRowsAhead;
  static constexpr bool kPhased = kAllProject;
  static constexpr int kBehind = kRing >= 6 ? 2 : 1;  // rows from one whose place is taken to the one at hand
  static constexpr int kOutWidth = kWidth / kStride, kStrips = kWidth / 16, kDepth = kC / 16, kTile = 64;
  // A row of input lies in shared memory by so many channels of its even pixels, then of its odd ones, with a swizzle
  // by which eight pixels of a parity have their 16 bytes in different banks.
  static constexpr int kBox = kC % 64 == 0 ? 64 : kC % 32 == 0 ? 32 : 16, kBoxBytes = kWidth / 2 * kBox * 2;
  static constexpr int kSwizzle = kBox == 64 ? kSwizzle128 : kBox == 32 ? kSwizzle64 : kSwizzle32;
  static constexpr int kGroups = kStride == 1 ? 2 : 4;                      // of a warp
  static constexpr int kWarps = kE / kRowsGroup / kGroups;                  // with channels
  static constexpr int kChannelThreads = (kWarps + 3) / 4 * 4 * kWarpSize;  // whole warpgroups
  static constexpr int kThreads = kChannelThreads + (kPhased ? 0 : 128), kCluster = 1, kRegisters = 0;
  static constexpr int kRowsOfTile = kTile / kOutWidth, kColumns = kO / kMatrixColumns;
  static constexpr int kRowBytes = kWidth * kC * 2, kTileBytes = kTile * kE * 2;
  static constexpr int kProjectBytes = kPhased ? 0 : kO * kE * 2;
  static constexpr int kConstantBytes = kE / kRowsGroup * kRowsConstantPieces * 16;
  static constexpr int kAtTiles = kProjectBytes, kAtRing = kAtTiles + 2 * kTileBytes;
  static constexpr int kAtConstants = kAtRing + kRing * kRowBytes, kAtBarriers = kAtConstants + kConstantBytes;
  static constexpr int kBytes = kAtBarriers + (2 * kRing + 6) * 8, kAlignment = 1024;
  // What a block is launched with is all that its warpgroups can share out.
  static constexpr int kLaunched = 65536 / kThreads / 8 * 8;
  static constexpr int left(int project) {
    const int each = (kLaunched * kThreads - 128 * project) / kChannelThreads / 8 * 8;
    return each > 240 ? 240 : each;
  }
  static constexpr int kAtLeast = left(kO / 2 + 40) > kLaunched ? kO / 2 + 40 : kO / 2 + 32;
  static constexpr int kChannelRegisters = left(kAtLeast);
  static constexpr int kProjectRegisters = (kLaunched * kThreads - kChannelThreads * kChannelRegisters) / 128 / 8 * 8;
  static constexpr bool kMoves = !kPhased && kProjectRegisters < kLaunched && kChannelRegisters > kLaunched;
  static_assert((!kPhased || kWarps % 4 == 0) && kE % 64 == 0 && kC % 16 == 0 && kWidth % 16 == 0 &&
                kTile % kOutWidth == 0);

  static int blocks(const Params& p) { return p.blocks; }
  static size_t shared_bytes(const Params&) { return kBytes + kAlignment; }
  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const RowsSizes size(p);
    visit("x", p.x, size.x * 2);
    visit("y", p.y, size.y * 2);
    visit("packed_expand", p.expand_weight, size.expand_weight * 16);
    visit("packed_constants", p.constants, size.constants * 16);
    visit("packed_project", p.project_weight, size.project_weight * 16);
    visit("packed_affine", p.project_affine, size.project_affine * 16);
  }

  // A thread's place, the block's shared memory and its rows.
  struct Block {
    uint32_t base;
    int warp, lane;
    int first, last;  // rows of results of all images
    bool cut;         // the first one is not an image's first

    // Rows of input, and which of all is the first: with a row above the first result and, of stride 1, one below the
    // last, but for the edges of images.
    MVF_DEVICE int first_input() const { return first * kStride - cut; }

    // Barriers: rows that came, rows that all have read, tiles that are full, tiles that were read, weights that came.
    MVF_DEVICE uint32_t came(int row) const { return base + kAtBarriers + row % kRing * 8; }
    MVF_DEVICE uint32_t read(int row) const { return base + kAtBarriers + (kRing + row % kRing) * 8; }
    MVF_DEVICE uint32_t full(int tile) const { return base + kAtBarriers + (2 * kRing + tile % 2) * 8; }
    MVF_DEVICE uint32_t empty(int tile) const { return base + kAtBarriers + (2 * kRing + 2 + tile % 2) * 8; }
    MVF_DEVICE uint32_t constants_came() const { return base + kAtBarriers + (2 * kRing + 4) * 8; }
    MVF_DEVICE uint32_t projection_came() const { return base + kAtBarriers + (2 * kRing + 5) * 8; }

    MVF_DEVICE uint32_t tile(int index) const { return base + kAtTiles + index % 2 * kTileBytes; }
    MVF_DEVICE uint32_t row(int index) const { return base + kAtRing + index % kRing * kRowBytes; }
  };

  static MVF_DEVICE void run(const Params& p) {
    const int out_height = p.height / kStride, rows = p.batch * out_height, block = block_index();
    const int share = rows / p.blocks, longer = rows % p.blocks;
    Block b;
    b.base = (shared_memory_begin() + kAlignment - 1) / kAlignment * kAlignment;
    b.warp = warp_uniform(thread_index() / kWarpSize), b.lane = thread_index() % kWarpSize;
    b.first = block * share + (block < longer ? block : longer), b.last = b.first + share + (block < longer ? 1 : 0);
    b.cut = b.first % out_height != 0;
    if (thread_index() == 0) {
      for (int i = 0; i < kRing; ++i) barrier_init(b.came(i), 1), barrier_init(b.read(i), kWarps);
      for (int i = 0; i < 2; ++i) barrier_init(b.full(i), kWarps), barrier_init(b.empty(i), 4);
      barrier_init(b.constants_came(), 1), barrier_init(b.projection_came(), 1);
      barrier_init_fence();
      fence_async();
      barrier_expect(b.constants_came(), kConstantBytes);
      copy_bulk(b.base + kAtConstants, p.constants, kConstantBytes, b.constants_came());
      if constexpr (!kPhased) {
        barrier_expect(b.projection_came(), kProjectBytes);
        copy_bulk(b.base, p.project_weight, kProjectBytes, b.projection_came());
      }
    }
    if (b.warp == 0 && b.lane == 0) prefetch_map(&p.rows);
    sync_block();
    if (!kPhased && b.warp >= kChannelThreads / kWarpSize) {
      if constexpr (kMoves) give_registers<kProjectRegisters>();
      grid_wait();
      grid_launch_dependents();
      project(p, b);
    } else {
      if constexpr (kMoves) take_registers<kChannelRegisters>();
      if (b.warp < kWarps) RowsExpansion<Rows>(p, b, out_height).run();
    }
  }

  static constexpr bool kAdds = kC == kO && kStride == 1;
  static constexpr int kRun = kO % 32 == 0 ? 4 : 2;  // tiles whose columns are neighbours in a lane
  using Words = std::conditional_t<kRun == 4, Bytes16, Bytes8>;

  // Which pixel of a tile is row `half` of a lane's two in the 16 of a product.
  static MVF_DEVICE int pixel(int half, int lane) { return kStride == 1 ? lane / 4 * 2 + half : half * 8 + lane / 4; }

  static MVF_DEVICE void project(const Params& p, const Block& b) {
    const int warp = b.warp % 4, t = b.lane % 4, pixels = (b.last - b.first) * kOutWidth;
    barrier_wait(b.projection_came(), 0);
    MVF_NO_UNROLL
    for (int tile = 0; tile * kTile < pixels; ++tile) {
      barrier_wait(b.full(tile), tile / 2 & 1);
      float sums[kO / 2] = {};
      wgmma_fence();
      MVF_UNROLL
      for (int k = 0; k < kE / 16; ++k) {
        const uint64_t convolved = matrix_descriptor(b.tile(tile) + k / 4 * 8192 + k % 4 * 32, 16, 1024, kSwizzle128);
        const uint64_t weight = matrix_descriptor(b.base + k / 4 * kO * 128 + k % 4 * 32, 16, 1024, kSwizzle128);
        Wgmma<Half, kO>::ss(sums, convolved, weight, k > 0);
      }
      wgmma_commit();
      wgmma_wait<0>();
      keep(sums);
      if (b.lane == 0) barrier_arrive(b.empty(tile));
      // The compiler would load all scales and biases before the products end, and spill them.
      const Float4* affine = p.project_affine + t + zero_behind(sums[0]);
      const Half* x = p.x + static_cast<size_t>(b.first) * kOutWidth * kC;
      Half* y = p.y + static_cast<size_t>(b.first) * kOutWidth * kO;
      int at[2];
      MVF_UNROLL
      for (int half = 0; half < 2; ++half) at[half] = tile * kTile + warp * 16 + pixel(half, b.lane);
      MVF_UNROLL
      for (int n = 0; n < kColumns; n += kRun) {
        const int column = n * 8 + t * 2 * kRun;
        Words out[2] = {};
        MVF_UNROLL
        for (int half = 0; half < 2 && kAdds && p.residual; ++half) {
          const int there = at[half] < pixels ? at[half] : pixels - 1;
          out[half] = load_result(reinterpret_cast<const Words*>(x + there * kC + column));
        }
        MVF_UNROLL
        for (int j = 0; j < kRun; ++j) {
          const Float4 a = load_global(affine + (n + j) * 4);
          MVF_UNROLL
          for (int half = 0; half < 2; ++half) {
            const float* sum = &sums[(n + j) * 4 + half * 2];
            Float2 v = {sum[0] * a.x + a.z, sum[1] * a.y + a.w};
            if (kAdds) {
              const Float2 term = unpack<Half>(out[half].word[j]);  // zeros without a residual
              v.x += term.x, v.y += term.y;
            }
            out[half].word[j] = pack<Half>(v.x, v.y);
          }
        }
        MVF_UNROLL
        for (int half = 0; half < 2; ++half) {
          if (at[half] < pixels) store_global_whole(reinterpret_cast<Words*>(y + at[half] * kO + column), out[half]);
        }
      }
    }
  }

  // Of a phased kernel, a warp projects a quarter of a tile's pixels, and of the outputs as many as there are warps
  // for.
  static MVF_DEVICE void project_together(const Params& p, const Block& b, int tile) {
    constexpr int kParts = kWarps / 4, kMine = kColumns / kParts;
    static_assert(!kPhased || kColumns % kParts == 0);
    const int lane = thread_index() % kWarpSize, first = b.warp / 4 * kMine, row = b.warp % 4 * 16 + lane % 16;
    const Bytes8* weights = reinterpret_cast<const Bytes8*>(p.project_weight) + first * kWarpSize + lane;
    float sums[kMine][4] = {};
    MVF_UNROLL_SOME
    for (int k = 0; k < kE / 16; ++k) {
      uint32_t pixels[4];
      load_matrix_at(pixels, b.tile(tile) + k / 4 * 8192 + row * 128 + ((k % 4 * 2 + lane / 16) ^ row % 8) * 16);
      MVF_UNROLL
      for (int n = 0; n < kMine; ++n) {
        const Bytes8 weight = load_global(weights + (k * kColumns + n) * kWarpSize);
        add_products(sums[n], pixels, weight.word);
      }
    }
    MVF_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int at = tile * kTile + b.warp % 4 * 16 + pixel(half, lane);
      if (at >= (b.last - b.first) * kOutWidth) continue;
      const size_t to = (static_cast<size_t>(b.first) * kOutWidth + at) * kO;
      MVF_UNROLL
      for (int n = 0; n < kMine; ++n) {
        const Float4 a = load_global(p.project_affine + (first + n) * 4 + lane % 4);
        const Float2 v = {sums[n][half * 2] * a.x + a.z, sums[n][half * 2 + 1] * a.y + a.w};
        store_global(reinterpret_cast<uint32_t*>(p.y + to) + (first + n) * 4 + lane % 4, pack<Half>(v.x, v.y));
      }
    }
  }
};

}  // namespace mobilevit_fast::cuda
