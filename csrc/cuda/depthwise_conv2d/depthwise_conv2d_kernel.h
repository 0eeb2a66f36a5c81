// Depthwise convolution of channels_last images. A block computes a square of output pixels of 64 channels: its input
// pixels, with the halo of the window, come to shared memory once.
#pragma once

#include "cuda/mma/fragments.h"
#include "depthwise_conv2d.h"

namespace mobilevit_fast::cuda {

// kTile x kTile output pixels; a warp has rows of them, two channels a lane, kRun pixels at a time.
template <class T, int kKernel, int kStride, int kTile>
struct DepthwiseConv2d {
  using Params = DepthwiseConv2dParams;

  static constexpr int kThreads = 256, kWarps = kThreads / kWarpSize, kRun = 8;
  static constexpr int kChannels = kDepthwiseChannels;
  static_assert(kTile % kRun == 0);

  static MVF_HOST_DEVICE int extent(const Params& p) { return (kTile - 1) * kStride + (kKernel - 1) * p.dilation + 1; }
  static MVF_HOST_DEVICE int slices(const Params& p) { return ceil_div(p.channels, kChannels); }
  static int64_t block_count(const Params& p) {
    return int64_t{1} * p.batch * ceil_div(p.out_h, kTile) * ceil_div(p.out_w, kTile) * slices(p);
  }
  static unsigned blocks(const Params& p) { return static_cast<unsigned>(block_count(p)); }
  static size_t shared_bytes(const Params& p) { return shared_size<T>(extent(p) * extent(p) * kChannels); }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const int64_t channels = p.channels * static_cast<int64_t>(sizeof(float));
    visit("x", p.x, static_cast<int64_t>(sizeof(T)) * p.batch * p.height * p.width * p.channels);
    visit("y", p.y, static_cast<int64_t>(sizeof(T)) * p.batch * p.out_h * p.out_w * p.channels);
    visit("weight", p.weight, kKernel * kKernel * channels);
    visit("scale", p.scale, channels);
    visit("bias", p.bias, channels);
  }

  static MVF_DEVICE void run(const Params& p) {
    const int slice = block_index() % slices(p), tile = block_index() / slices(p);
    const int across = ceil_div(p.out_w, kTile), down = ceil_div(p.out_h, kTile);
    const int image = tile / (across * down), top = tile / across % down * kTile, left = tile % across * kTile;
    SharedMemory shared;
    T* input = shared.template take<T>(extent(p) * extent(p) * kChannels);  // (extent, extent, kChannels)
    load_input(p, image, top * kStride - p.padding, left * kStride - p.padding, slice * kChannels, input);

    const int pair = thread_index() % kWarpSize, channel = slice * kChannels + 2 * pair;
    if (channel >= p.channels) return;
    const Float2 scale = load_global(p.scale + channel / 2), bias = load_global(p.bias + channel / 2);
    for (int row = thread_index() / kWarpSize; row < kTile && top + row < p.out_h; row += kWarps) {
      for (int column = 0; column < kTile && left + column < p.out_w; column += kRun) {
        Float2 sum[kRun] = {};
        convolve(p, input, row, column, pair, p.weight + channel / 2, sum);
        const int64_t line = (static_cast<int64_t>(image) * p.out_h + top + row) * p.out_w + left + column;
        uint32_t* y = words(static_cast<T*>(p.y) + line * p.channels + channel);
        MVF_UNROLL
        for (int i = 0; i < kRun; ++i) {
          if (left + column + i >= p.out_w) break;
          const float u = activate(p.activation, sum[i].x * scale.x + bias.x);
          const float v = activate(p.activation, sum[i].y * scale.y + bias.y);
          store_global(y + i * (p.channels / 2), pack<T>(u, v));
        }
      }
    }
  }

 private:
  // Zeros outside of the image and beyond its channels.
  static MVF_DEVICE void load_input(const Params& p, int image, int top, int left, int channel, T* input) {
    constexpr int kNumbers = sizeof(Bytes16) / sizeof(T), kPieces = kChannels / kNumbers;
    const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(image) * p.height * p.width * p.channels;
    for (int i = thread_index(); i < extent(p) * extent(p) * kPieces; i += kThreads) {
      const int pixel = i / kPieces, piece = i % kPieces * kNumbers;
      const int row = top + pixel / extent(p), column = left + pixel % extent(p);
      const bool there = row >= 0 && row < p.height && column >= 0 && column < p.width && channel + piece < p.channels;
      const int64_t at = there ? (static_cast<int64_t>(row) * p.width + column) * p.channels + channel + piece : 0;
      copy_async(input + pixel * kChannels + piece, x + at, there);
    }
    commit_async();
    wait_async<0>();
    sync_block();
  }

  static MVF_DEVICE void convolve(const Params& p, const T* input, int row, int column, int pair, const Float2* weight,
                                  Float2 (&sum)[kRun]) {
    for (int kh = 0; kh < kKernel; ++kh) {
      const int line = (row * kStride + kh * p.dilation) * extent(p) + column * kStride;
      const uint32_t* x = words(input + line * kChannels) + pair;
      MVF_UNROLL
      for (int kw = 0; kw < kKernel; ++kw) {
        const Float2 w = load_global(weight + (kh * kKernel + kw) * (p.channels / 2));
        MVF_UNROLL
        for (int i = 0; i < kRun; ++i) {
          const Float2 value = unpack<T>(load_shared(x + (i * kStride + kw * p.dilation) * (kChannels / 2)));
          sum[i].x += value.x * w.x, sum[i].y += value.y * w.y;
        }
      }
    }
  }
};

}  // namespace mobilevit_fast::cuda
