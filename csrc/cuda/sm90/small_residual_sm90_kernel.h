// An inverted residual of few images: a block, or a cluster of blocks that shares out the expanded channels, has a
// small tile of output pixels. In a cluster the convolved channels go to all of its blocks, each of which projects them
// to some of the outputs, so that no partial sums cross blocks.
#pragma once

#include "launch_sm90.h"
#include "small_parts_sm90.h"
#include "small_residual_shapes_sm90.h"

namespace mobilevit_fast::cuda::few {

template <class T, class S>
struct ResidualKernel {
  using Params = SmallResidualParams;
  static constexpr int kThreads = few::kThreads, kCluster = S::kSlices, kRegisters = 0;

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(S::tiles(p) * S::kSlices); }
  static size_t shared_bytes(const Params&) { return S::kShared; }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    visit("x", p.x, size_t{2} * p.batch * p.height * p.width * S::kInputs);
    visit("y", p.y, size_t{2} * p.batch * p.out_h * p.out_w * S::kOutputs);
    visit("weights", p.weights, size_t{S::kSlices} * S::kBytes);
  }

  static MVF_DEVICE void run(const Params& p) {
    const uint32_t shared = shared_memory_begin(), loaded = shared + S::kAtBarriers, convolved = loaded + 8;
    const int slice = block_index() % S::kSlices, across = ceil_div(p.out_w, S::kWide);
    const int spot = block_index() / S::kSlices, in_image = across * ceil_div(p.out_h, S::kHigh);
    const Tile tile{spot / in_image, spot % in_image / across * S::kHigh, spot % in_image % across * S::kWide};
    grid_launch_dependents();
    if (thread_index() == 0) {
      barrier_init(loaded, 1);
      barrier_init(convolved, 1);
      barrier_init_fence();
      barrier_expect(loaded, S::kBytes);
      copy_bulk(shared, p.weights + slice * (S::kBytes / 16), S::kBytes, loaded);
      if (S::kSlices > 1) barrier_expect(convolved, S::kPixels * S::kExpanded * 2);
    }
    if (S::kSlices > 1) cluster_arrive();
    grid_wait();
    load_pixels(p, shared + S::kAtInput, tile);
    if (S::kSlices > 1) cluster_wait();  // all barriers are set up
    sync_block();
    barrier_wait(loaded, 0);
    expand(p, shared, tile);
    sync_block();
    convolve(shared, slice, convolved);
    if (S::kSlices == 1) {
      sync_block();
    } else {
      barrier_wait_cluster(convolved, 0);
    }
    project(p, shared, slice, tile);
  }

 private:
  struct Tile {
    int image, y, x;  // of the output
  };

  static MVF_DEVICE bool inside(const Params& p, const Tile& tile, int pixel) {
    const int y = tile.y * S::kStride + pixel / S::kInWide - 1, x = tile.x * S::kStride + pixel % S::kInWide - 1;
    return y >= 0 && y < p.height && x >= 0 && x < p.width;
  }

  // What the tile's windows see, zeros outside of the image and up to whole steps of 16 channels.
  static MVF_DEVICE void load_pixels(const Params& p, uint32_t input, const Tile& tile) {
    constexpr int kPieces = S::kInputs / 8, kFilled = S::kSteps * 2;  // of 8 channels
    for (int i = thread_index(); i < S::kInPixels * kFilled; i += kThreads) {
      const int pixel = i / kFilled, piece = i % kFilled;
      const bool there = piece < kPieces && inside(p, tile, pixel);
      const int y = tile.y * S::kStride + pixel / S::kInWide - 1, x = tile.x * S::kStride + pixel % S::kInWide - 1;
      const int64_t at = there ? ((int64_t{1} * tile.image * p.height + y) * p.width + x) * S::kInputs + piece * 8 : 0;
      copy_async_at(input + (pixel * S::kInPitch + piece * 8) * 2, static_cast<const T*>(p.x) + at, there);
    }
    commit_async();
    wait_async<0>();
  }

  // A warp keeps the weights of some columns and takes row tiles through them.
  static MVF_DEVICE void expand(const Params& p, uint32_t shared, const Tile& tile) {
    constexpr int kColumns = S::Expand::kWide, kRows = S::Expand::kHigh, kOwn = S::kTiles / kColumns;
    static_assert(S::kTiles % kColumns == 0 && kColumns * kRows <= kWarps);
    const int lane = thread_index() % kWarpSize, warp = thread_index() / kWarpSize;
    const int first = warp % kColumns * kOwn, row_warp = warp / kColumns;
    if (row_warp >= kRows) return;
    Bytes16 b[kOwn][S::kPairs];
    Float2 scale[kOwn], bias[kOwn];
    MVF_UNROLL
    for (int j = 0; j < kOwn; ++j) {
      const uint32_t vectors = shared + S::kAtExpandScale + ((first + j) * 8 + lane % 4 * 2) * 4;
      scale[j] = load_shared_at<Float2>(vectors), bias[j] = load_shared_at<Float2>(vectors + S::kHere * 4);
      MVF_UNROLL
      for (int k = 0; k < S::kPairs; ++k) {
        b[j][k] = load_shared_at<Bytes16>(shared + ((first + j) * S::kPairs + k) * kFragment + lane * 16);
      }
    }
    MVF_NO_UNROLL
    for (int r = row_warp; r < S::kInRowTiles; r += kRows) {
      uint32_t a[S::kSteps][4];
      MVF_UNROLL
      for (int k = 0; k < S::kSteps; ++k) {
        load_matrix_at(a[k], shared + S::kAtInput + ((r * 16 + lane % 16) * S::kInPitch + lane / 16 * 8 + k * 16) * 2);
      }
      float sums[kOwn][4] = {};
      MVF_UNROLL
      for (int k = 0; k < S::kSteps; ++k) {
        MVF_UNROLL
        for (int j = 0; j < kOwn; ++j) {
          multiply_words<T>(sums[j], a[k], b[j][k / 2].word[k % 2 * 2], b[j][k / 2].word[k % 2 * 2 + 1]);
        }
      }
      MVF_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int pixel = r * 16 + half * 8 + lane / 4;
        const bool there = inside(p, tile, pixel);
        const uint32_t target = shared + S::kAtExpanded + (pixel * S::kPitch + first * 8 + lane % 4 * 2) * 2;
        MVF_UNROLL
        for (int j = 0; j < kOwn; ++j) {
          const float u = silu(sums[j][2 * half] * scale[j].x + bias[j].x);
          const float v = silu(sums[j][2 * half + 1] * scale[j].y + bias[j].y);
          store_shared_at(target + j * 16, there ? pack<T>(u, v) : 0u);  // the margin is zeros behind the expansion
        }
      }
    }
  }

  static MVF_DEVICE void load_eight(uint32_t address, float (&v)[8]) {
    const Bytes16 bits = load_shared_at<Bytes16>(address);
    MVF_UNROLL
    for (int e = 0; e < 4; ++e) {
      const Float2 two = unpack<T>(bits.word[e]);
      v[2 * e] = two.x, v[2 * e + 1] = two.y;
    }
  }

  // A thread has 8 channels of a pixel, or of neighbours in a row.
  static MVF_DEVICE void convolve(uint32_t shared, int slice, uint32_t convolved) {
    constexpr int kStrip = S::kStride == 1 ? 4 : 1, kStripsWide = S::kWide / kStrip;
    static_assert(S::kWide % kStrip == 0);
    MVF_NO_UNROLL
    for (int i = thread_index(); i < S::kTiles * S::kPixels / kStrip; i += kThreads) {
      const int channel = i % S::kTiles * 8, strip = i / S::kTiles;
      const int y = strip / kStripsWide, x = strip % kStripsWide * kStrip;
      const uint32_t source =
          shared + S::kAtExpanded + ((y * S::kStride * S::kInWide + x * S::kStride) * S::kPitch + channel) * 2;
      float sums[kStrip][8] = {};
      MVF_UNROLL
      for (int row = 0; row < 3; ++row) {
        float w[3][8];
        MVF_UNROLL
        for (int column = 0; column < 3; ++column) {
          load_eight(shared + S::kAtWindow + ((row * 3 + column) * S::kHere + channel) * 2, w[column]);
        }
        MVF_UNROLL
        for (int c = 0; c < kStrip + 2; ++c) {
          float v[8];
          load_eight(source + (row * S::kInWide + c) * S::kPitch * 2, v);
          MVF_UNROLL
          for (int s = 0; s < kStrip; ++s) {
            if (c < s || c >= s + 3) continue;
            MVF_UNROLL
            for (int e = 0; e < 8; ++e) sums[s][e] += v[e] * w[c - s][e];
          }
        }
      }
      Float2 scale[4], bias[4];
      MVF_UNROLL
      for (int e = 0; e < 4; ++e) {
        const uint32_t vectors = shared + S::kAtWindowScale + (channel + 2 * e) * 4;
        scale[e] = load_shared_at<Float2>(vectors), bias[e] = load_shared_at<Float2>(vectors + S::kHere * 4);
      }
      MVF_UNROLL
      for (int s = 0; s < kStrip; ++s) {
        Bytes16 bits;
        MVF_UNROLL
        for (int e = 0; e < 4; ++e) {
          bits.word[e] =
              pack<T>(silu(sums[s][2 * e] * scale[e].x + bias[e].x), silu(sums[s][2 * e + 1] * scale[e].y + bias[e].y));
        }
        const int pixel = y * S::kWide + x + s;
        const uint32_t target = shared + S::kAtConvolved + (pixel * S::kOutPitch + slice * S::kHere + channel) * 2;
        if (S::kSlices == 1) {
          store_shared_at(target, bits);
        } else {
          MVF_NO_UNROLL
          for (int rank = 0; rank < S::kSlices; ++rank) {
            store_async(remote_address(target, rank), bits, remote_address(convolved, rank));
          }
        }
      }
    }
  }

  static MVF_DEVICE void project(const Params& p, uint32_t shared, int slice, const Tile& tile) {
    const int lane = thread_index() % kWarpSize, rest = S::kOutputs / 8 - slice * S::kOutTiles;
    const int tiles = rest < S::kOutTiles ? (rest > 0 ? rest : 0) : S::kOutTiles;
    const auto store = [&](int column_tile, int row_tile, const float (&sums)[4]) {
      const uint32_t vectors = shared + S::kAtProjectScale + (column_tile * 8 + lane % 4 * 2) * 4;
      const Float2 scale = load_shared_at<Float2>(vectors);
      const Float2 bias = load_shared_at<Float2>(vectors + S::kOutTiles * 32);
      const int column = (slice * S::kOutTiles + column_tile) * 8 + lane % 4 * 2;
      MVF_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int pixel = row_tile * 16 + half * 8 + lane / 4, y = pixel / S::kWide, x = pixel % S::kWide;
        if ((S::kPixels % 16 && pixel >= S::kPixels) || tile.y + y >= p.out_h || tile.x + x >= p.out_w) continue;
        Float2 v{sums[2 * half] * scale.x + bias.x, sums[2 * half + 1] * scale.y + bias.y};
        if (S::kResidual) {
          const int input = ((y + 1) * S::kInWide + x + 1) * S::kInPitch + column;
          const Float2 before = unpack<T>(load_shared_at<uint32_t>(shared + S::kAtInput + input * 2));
          v.x += before.x, v.y += before.y;
        }
        const int64_t at = (int64_t{1} * tile.image * p.out_h + tile.y + y) * p.out_w + tile.x + x;
        store_global(words(static_cast<T*>(p.y) + at * S::kOutputs + column), pack<T>(v.x, v.y));
      }
    };
    multiply_rows<T, S::kRowTiles, S::kOutTiles, S::kOutSteps, typename S::Project>(
        shared + S::kAtConvolved, S::kOutPitch, shared + S::kAtProject, shared + S::kAtReduce, tiles, store);
  }
};

// Calls visit(K()) with the kernel for these parameters, if there is one.
template <class T, class Visit>
void with_residual_kernel(const SmallResidualParams& p, const Visit& visit) {
  const auto checked = [&](auto shape) {
    using S = decltype(shape);
    if (p.stride == S::kStride) visit(ResidualKernel<T, S>());
  };
  with_residual_shape(p.channels, p.expanded, p.outputs, checked, ResidualShapes());
}

}  // namespace mobilevit_fast::cuda::few

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t small_residual(const SmallResidualParams& params, cudaStream_t stream) {
  cudaError_t status = cudaErrorInvalidValue;
  few::with_residual_kernel<T>(params, [&](auto kernel) { status = launch_sm90<decltype(kernel)>(params, stream); });
  return status;
}

}  // namespace mobilevit_fast::cuda
