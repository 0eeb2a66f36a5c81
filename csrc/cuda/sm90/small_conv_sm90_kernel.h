// A dense 3x3 convolution of few images: a block has a small tile of pixels and a few columns of outputs, and its warps
// share out taps and channels. The weights of its columns come before the kernel waits for the one before it. No warp
// loads a fragment that another one loads.
#pragma once

#include "launch_sm90.h"
#include "small_conv_sm90.h"
#include "small_parts_sm90.h"

namespace mobilevit_fast::cuda::few {

// Of kFirst channels of one image and, beside them, kSecond of another; a block has kHigh x 8 pixels, kTiles x 8
// outputs.
template <int kFirst_, int kSecond_, int kOutputs_, int kHigh_, int kTiles_>
struct ConvShape {
  static constexpr int kFirst = kFirst_, kSecond = kSecond_, kOutputs = kOutputs_, kHigh = kHigh_, kTiles = kTiles_;
  static constexpr int kWindow = 3, kTaps = kWindow * kWindow, kWide = 8;
  static constexpr int kInputs = kFirst + kSecond, kPairs = ceil_div(kTaps * kInputs, 32);  // of steps of 16 inputs
  static constexpr int kPieces = kInputs / 8, kLastPiece = kTaps * kPieces - 1;             // of 8 channels
  static constexpr int kRowTiles = kHigh * kWide / 16, kItems = kRowTiles * kTiles;         // of 16 pixels; of sums
  static constexpr int kInHigh = kHigh + kWindow - 1, kInWide = kWide + kWindow - 1;
  static constexpr int kPitch = odd_pitch(kInputs);
  static constexpr int kSlices = kOutputs / 8 / kTiles;
  static constexpr int kWeightBytes = kTiles * kPairs * kFragment, kVectorBytes = kTiles * 32;
  static constexpr int kAtScale = kWeightBytes, kAtBias = kAtScale + kVectorBytes;
  static constexpr int kAtPixels = round_up(kAtBias + kVectorBytes, 128);
  static constexpr int kAtReduce = kAtPixels + round_up(kInHigh * kInWide * kPitch * 2, 128);
  static constexpr int kAtBarrier = kAtReduce + kWarps * kItems * kFragment, kShared = kAtBarrier + 16;
  static_assert(kFirst % 8 == 0 && kSecond % 8 == 0 && kHigh % 2 == 0 && kOutputs % (8 * kTiles) == 0);
  static_assert(kShared <= kMaxShared);

  static int64_t tiles(const SmallConvParams& p) {
    return int64_t{1} * p.batch * ceil_div(p.height, kHigh) * ceil_div(p.width, kWide);
  }
};

template <class T, class S>
struct ConvKernel {
  using Params = SmallConvParams;
  static constexpr int kThreads = few::kThreads, kCluster = 1, kRegisters = 0;

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(S::tiles(p) * S::kSlices); }
  static size_t shared_bytes(const Params&) { return S::kShared; }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const size_t pixels = size_t{2} * p.batch * p.height * p.width;
    visit("x", p.x, pixels * S::kFirst);
    if (S::kSecond > 0) visit("x2", p.x2, pixels * S::kSecond);
    visit("y", p.y, pixels * S::kOutputs);
    visit("weight", p.weight, size_t{S::kOutputs / 8 * S::kPairs * kFragment});
    visit("scale", p.scale, S::kOutputs * sizeof(float));
    visit("bias", p.bias, S::kOutputs * sizeof(float));
  }

  static MVF_DEVICE void run(const Params& p) {
    const uint32_t shared = shared_memory_begin();
    const int slice = block_index() % S::kSlices, across = ceil_div(p.width, S::kWide);
    const int spot = block_index() / S::kSlices, in_image = across * ceil_div(p.height, S::kHigh);
    const Tile tile{spot / in_image, spot % in_image / across * S::kHigh, spot % in_image % across * S::kWide};
    grid_launch_dependents();
    if (thread_index() == 0) load_weights(p, shared, slice);
    grid_wait();
    load_pixels(p, shared + S::kAtPixels, tile);
    sync_block();  // the barrier is set up as well
    barrier_wait(shared + S::kAtBarrier, 0);
    float sums[S::kTiles][S::kRowTiles][4] = {};
    multiply(shared, sums);
    store_sums(shared + S::kAtReduce, sums);
    sync_block();
    finish(p, shared, slice, tile);
  }

 private:
  struct Tile {
    int image, y, x;
  };

  static MVF_DEVICE void load_weights(const Params& p, uint32_t shared, int slice) {
    const uint32_t barrier = shared + S::kAtBarrier;
    barrier_init(barrier, 1);
    barrier_init_fence();
    barrier_expect(barrier, S::kWeightBytes + 2 * S::kVectorBytes);
    copy_bulk(shared, p.weight + slice * (S::kWeightBytes / 16), S::kWeightBytes, barrier);
    copy_bulk(shared + S::kAtScale, p.scale + slice * S::kTiles * 8, S::kVectorBytes, barrier);
    copy_bulk(shared + S::kAtBias, p.bias + slice * S::kTiles * 8, S::kVectorBytes, barrier);
  }

  // The tile with its margin, zeros outside of the image.
  static MVF_DEVICE void load_pixels(const Params& p, uint32_t pixels, const Tile& tile) {
    for (int i = thread_index(); i < S::kInHigh * S::kInWide * S::kPieces; i += kThreads) {
      const int pixel = i / S::kPieces, channel = i % S::kPieces * 8;
      const int y = tile.y + pixel / S::kInWide - 1, x = tile.x + pixel % S::kInWide - 1;
      const bool there = y >= 0 && y < p.height && x >= 0 && x < p.width;
      const int64_t at = there ? (int64_t{1} * tile.image * p.height + y) * p.width + x : 0;
      const bool second = S::kSecond > 0 && channel >= S::kFirst;
      const T* source = second ? static_cast<const T*>(p.x2) + at * S::kSecond + channel - S::kFirst
                               : static_cast<const T*>(p.x) + at * S::kFirst + channel;
      copy_async_at(pixels + (pixel * S::kPitch + channel) * 2, source, there);
    }
    commit_async();
    wait_async<0>();
  }

  // Of the pairs of steps a warp takes every eighth one. Depth is (tap, channel), 8 channels of a tap at a time; beyond
  // the last piece weights are zero.
  static MVF_DEVICE void multiply(uint32_t shared, float (&sums)[S::kTiles][S::kRowTiles][4]) {
    const int lane = thread_index() % kWarpSize, warp = thread_index() / kWarpSize;
    constexpr bool kWhole = S::kInputs % 32 == 0;  // a pair is of one tap
    uint32_t rows[S::kRowTiles];
    MVF_UNROLL
    for (int r = 0; r < S::kRowTiles; ++r) {
      const int pixel = (r * 2 + lane / 8 % 2) * S::kInWide + lane % 8;
      rows[r] = shared + S::kAtPixels + (pixel * S::kPitch + (kWhole ? lane / 16 * 8 : 0)) * 2;
    }
    constexpr int kOwn = ceil_div(S::kPairs, kWarps), kTogether = S::kItems > 3 ? 2 : 4;
    MVF_UNROLL
    for (int i0 = 0; i0 < kOwn; i0 += kTogether) {
      uint32_t a[kTogether][2][S::kRowTiles][4];
      Bytes16 b[kTogether][S::kTiles];
      MVF_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        const int pair = (i0 + i) * kWarps + warp;
        if (pair >= S::kPairs) continue;
        MVF_UNROLL
        for (int j = 0; j < S::kTiles; ++j) {
          b[i][j] = load_shared_at<Bytes16>(shared + (j * S::kPairs + pair) * kFragment + lane * 16);
        }
        MVF_UNROLL
        for (int half = 0; half < 2; ++half) {
          int piece = 4 * pair + 2 * half;
          if (!kWhole) {
            piece += lane / 16;
            piece = piece < S::kLastPiece ? piece : S::kLastPiece;
          }
          const int tap = piece / S::kPieces, pixel = tap / S::kWindow * S::kInWide + tap % S::kWindow;
          const int offset = (pixel * S::kPitch + piece % S::kPieces * 8) * 2;
          MVF_UNROLL
          for (int r = 0; r < S::kRowTiles; ++r) load_matrix_at(a[i][half][r], rows[r] + offset);
        }
      }
      MVF_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        if ((i0 + i) * kWarps + warp >= S::kPairs) continue;
        MVF_UNROLL
        for (int half = 0; half < 2; ++half) {
          MVF_UNROLL
          for (int j = 0; j < S::kTiles; ++j) {
            MVF_UNROLL
            for (int r = 0; r < S::kRowTiles; ++r) {
              multiply_words<T>(sums[j][r], a[i][half][r], b[i][j].word[2 * half], b[i][j].word[2 * half + 1]);
            }
          }
        }
      }
    }
  }

  static MVF_DEVICE void store_sums(uint32_t reduce, const float (&sums)[S::kTiles][S::kRowTiles][4]) {
    const int lane = thread_index() % kWarpSize, warp = thread_index() / kWarpSize;
    MVF_UNROLL
    for (int i = 0; i < S::kItems; ++i) {
      store_shared_at(reduce + (warp * S::kItems + i) * kFragment + lane * 16,
                      bits_of(sums[i / S::kRowTiles][i % S::kRowTiles]));
    }
  }

  // A thread adds up two neighbouring outputs of a pixel at a time.
  static MVF_DEVICE void finish(const Params& p, uint32_t shared, int slice, const Tile& tile) {
    for (int i = thread_index(); i < S::kItems * 64; i += kThreads) {
      Float2 v{0.0f, 0.0f};
      MVF_UNROLL
      for (int w = 0; w < kWarps; ++w) {
        const Float2 other = load_shared_at<Float2>(shared + S::kAtReduce + (w * S::kItems * 64 + i) * 8);
        v.x += other.x, v.y += other.y;
      }
      const int item = i / 64, lane = i / 2 % 32, column = item / S::kRowTiles * 8 + lane % 4 * 2;
      const int row = item % S::kRowTiles * 16 + i % 2 * 8 + lane / 4;
      const Float2 scale = load_shared_at<Float2>(shared + S::kAtScale + column * 4);
      const Float2 bias = load_shared_at<Float2>(shared + S::kAtBias + column * 4);
      const int y = tile.y + row / 8, x = tile.x + row % 8;
      if (y >= p.height || x >= p.width) continue;
      const int64_t pixel = (int64_t{1} * tile.image * p.height + y) * p.width + x;
      store_global(words(static_cast<T*>(p.y) + pixel * S::kOutputs + slice * S::kTiles * 8 + column),
                   pack<T>(silu(v.x * scale.x + bias.x), silu(v.y * scale.y + bias.y)));
    }
  }
};

// Of the three sizes of MobileViT; where there are two tiles, the larger one comes first.
using ConvShapes = List<ConvShape<96, 0, 96, 4, 3>, ConvShape<96, 0, 96, 2, 1>, ConvShape<96, 96, 96, 4, 3>,
                        ConvShape<96, 96, 96, 2, 1>, ConvShape<128, 0, 128, 4, 1>, ConvShape<128, 128, 128, 4, 1>,
                        ConvShape<160, 0, 160, 2, 1>, ConvShape<160, 160, 160, 2, 1>, ConvShape<64, 0, 64, 4, 2>,
                        ConvShape<64, 0, 64, 2, 1>, ConvShape<64, 64, 64, 4, 2>, ConvShape<64, 64, 64, 2, 1>,
                        ConvShape<80, 0, 80, 4, 1>, ConvShape<80, 0, 80, 2, 1>, ConvShape<80, 80, 80, 4, 1>,
                        ConvShape<80, 80, 80, 2, 1>, ConvShape<48, 0, 48, 4, 2>, ConvShape<48, 48, 48, 4, 2>>;

constexpr int kEnoughBlocks = 64;  // a larger tile that makes fewer leaves half of the chip idle

// Calls visit(K()) with the kernel for these parameters; false, calling nothing, where there is none.
template <class T, class Visit, class... Shapes>
bool with_conv_kernel(const SmallConvParams& p, const Visit& visit, List<Shapes...>) {
  int chosen = -1, number = 0;
  bool enough = false;
  const auto consider = [&](auto shape) {
    using S = decltype(shape);
    const bool fits = p.channels == S::kFirst && p.channels2 == S::kSecond && p.outputs == S::kOutputs;
    if (fits && !enough) chosen = number, enough = S::tiles(p) * S::kSlices >= kEnoughBlocks;
    ++number;
  };
  (consider(Shapes()), ...);
  number = 0;
  return ((number++ == chosen && (visit(ConvKernel<T, Shapes>()), true)) || ...);
}

}  // namespace mobilevit_fast::cuda::few

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t small_conv(const SmallConvParams& params, cudaStream_t stream) {
  cudaError_t status = cudaErrorInvalidValue;
  const auto start = [&](auto kernel) { status = launch_sm90<decltype(kernel)>(params, stream); };
  few::with_conv_kernel<T>(params, start, few::ConvShapes());
  return status;
}

}  // namespace mobilevit_fast::cuda
