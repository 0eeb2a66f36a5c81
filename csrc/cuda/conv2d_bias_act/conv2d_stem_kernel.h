// Dense convolution of images of few channels, such as a model's first: taps and channels together are one sum. Images
// are channels_last or planar (NCHW), of the type that is computed in or uint8. A block computes a tile of output
// pixels; the input pixels that it sees are in shared memory once, and every lane takes the elements of its fragments
// from there.
#pragma once

#include "conv2d_bias_act_kernel.h"
#include "conv2d_stem.h"

namespace mobilevit_fast::cuda {

// kSteps of 16 elements are the window; pixels are of type In.
template <class T, class In, int kSteps>
struct Conv2dStem {
  using Params = Conv2dStemParams;

  static constexpr int kThreads = 128, kWarps = kThreads / kWarpSize;

  static MVF_HOST_DEVICE int extent_h(const Params& p) {
    return (p.tile_h - 1) * p.shape.stride_h + (p.shape.kernel_h - 1) * p.shape.dilation_h + 1;
  }
  static MVF_HOST_DEVICE int extent_w(const Params& p) {
    return (p.tile_w - 1) * p.shape.stride_w + (p.shape.kernel_w - 1) * p.shape.dilation_w + 1;
  }
  static unsigned blocks(const Params& p) {
    return static_cast<unsigned>(p.shape.batch * ceil_div(p.shape.out_h, p.tile_h) * ceil_div(p.shape.out_w, p.tile_w));
  }
  static size_t shared_bytes(const Params& p) { return shared_size<T>(extent_h(p) * extent_w(p) * p.shape.channels); }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const Conv2dShape& s = p.shape;
    const size_t pairs = ceil_div(s.outputs, 16), numbers = s.kernel_h * s.kernel_w * s.channels;
    visit("x", p.x, static_cast<size_t>(s.batch) * s.height * s.width * p.image_channels * sizeof(In));
    visit("y", p.y, static_cast<size_t>(s.batch) * s.out_h * s.out_w * s.outputs * sizeof(T));
    visit("weight", p.weight, (numbers + 15) / 16 * pairs * kWarpSize * sizeof(Bytes16));
    visit("scale", p.scale, pairs * 16 * sizeof(float));
    visit("bias", p.bias, pairs * 16 * sizeof(float));
  }

  static MVF_DEVICE void run(const Params& p) {
    const Conv2dShape& s = p.shape;
    const int across = ceil_div(s.out_w, p.tile_w), down = ceil_div(s.out_h, p.tile_h), index = block_index();
    const int image = index / (across * down), top = index / across % down * p.tile_h, left = index % across * p.tile_w;
    SharedMemory shared;
    T* input = shared.template take<T>(extent_h(p) * extent_w(p) * s.channels);
    load_input(p, image, top * s.stride_h - s.padding_h, left * s.stride_w - s.padding_w, input);

    const int lane = thread_index() % kWarpSize, warp = thread_index() / kWarpSize;
    int shift[kSteps][4];  // from a pixel's first element to those of the lane, -1 beyond the window
    MVF_UNROLL
    for (int i = 0; i < kSteps * 4; ++i) {
      const int number = i / 4 * kMatrixDepth + i / 2 % 2 * 8 + lane % 4 * 2 + i % 2;
      shift[i / 4][i % 4] = shift_of(p, number);
    }
    const int pairs = ceil_div(s.outputs, 16), tiles = ceil_div(p.tile_h * p.tile_w, kMatrixRows);
    for (int pair = 0; pair < pairs; ++pair) {
      uint32_t b[kSteps][2][2] = {};
      MVF_UNROLL
      for (int step = 0; step < kSteps; ++step) {
        if (step * kMatrixDepth >= s.kernel_h * s.kernel_w * s.channels) break;
        load_weights<2>(p.weight + (step * pairs + pair) * kWarpSize + lane, b[step]);
      }
      const int channel = pair * 16 + lane % 4 * 4;
      Float2 scale[2], bias[2];
      load_pairs(p.scale, channel, scale), load_pairs(p.bias, channel, bias);
      for (int tile = warp; tile < tiles; tile += kWarps) {
        int at[2], row[2], column[2];  // the lane's two pixels
        MVF_UNROLL
        for (int i = 0; i < 2; ++i) {
          const int pixel = tile * kMatrixRows + i * 8 + lane / 4;
          row[i] = pixel / p.tile_w, column[i] = pixel % p.tile_w;
          at[i] = row[i] < p.tile_h ? (row[i] * s.stride_h * extent_w(p) + column[i] * s.stride_w) * s.channels : 0;
        }
        float sums[2][4] = {};
        sync_warp();  // lanes that stored nothing are ahead, and the matrix unit takes whole warps
        MVF_UNROLL
        for (int step = 0; step < kSteps; ++step) {
          uint32_t a[4];
          MVF_UNROLL
          for (int i = 0; i < 4; ++i) {
            const T* pixel = input + at[i % 2];
            a[i] = number_at(pixel, shift[step][i / 2 * 2]) | number_at(pixel, shift[step][i / 2 * 2 + 1]) << 16;
          }
          multiply_matrix<T>(sums[0], a, b[step][0]);
          multiply_matrix<T>(sums[1], a, b[step][1]);
        }
        if (channel >= s.outputs) continue;
        MVF_UNROLL
        for (int i = 0; i < 2; ++i) {
          const int h = top + row[i], w = left + column[i];
          if (row[i] >= p.tile_h || h >= s.out_h || w >= s.out_w) continue;
          const Four four = finish(sums[0] + i * 2, sums[1] + i * 2, scale, bias, p.activation);
          const int64_t pixel = (static_cast<int64_t>(image) * s.out_h + h) * s.out_w + w;
          store_four(static_cast<T*>(p.y) + pixel * s.outputs + channel, four, channel, s.outputs, s.outputs);
        }
      }
    }
  }

 private:
  static MVF_DEVICE uint32_t number_at(const T* pixel, int shift) {
    return shift < 0 ? 0u : load_shared(pixel + shift).bits;
  }

  static MVF_DEVICE int shift_of(const Params& p, int number) {
    const int tap = number / p.shape.channels, channel = number % p.shape.channels;
    const int row = tap / p.shape.kernel_w, column = tap % p.shape.kernel_w;
    if (row >= p.shape.kernel_h) return -1;
    return (row * p.shape.dilation_h * extent_w(p) + column * p.shape.dilation_w) * p.shape.channels + channel;
  }

  static MVF_DEVICE T number_of(T value) { return value; }
  static MVF_DEVICE T number_of(uint8_t value) { return from_float<T>(static_cast<float>(value)); }  // exactly

  // Warps take runs of neighbouring elements, the channels of a row or a row of one channel; zeros outside of the
  // image.
  static MVF_DEVICE void load_input(const Params& p, int image, int top, int left, T* input) {
    constexpr int kTogether = 4;  // loads under way
    const Conv2dShape& s = p.shape;
    const int lane = thread_index() % kWarpSize, each = p.planar ? 1 : p.image_channels;
    const int planes = p.image_channels / each;
    const int run = extent_w(p) * each, begin = left < 0 ? -left * each : 0, end = (s.width - left) * each;
    for (int i = thread_index() / kWarpSize; i < extent_h(p) * planes; i += kWarps) {
      const int row = top + i / planes, plane = i % planes;
      const bool inside = row >= 0 && row < s.height;
      const int64_t line = ((static_cast<int64_t>(image) * planes + plane) * s.height + row) * s.width + left;
      const In* x = static_cast<const In*>(p.x) + line * each;
      T* target = input + i / planes * extent_w(p) * s.channels + plane;
      for (int first = lane; first < run; first += kTogether * kWarpSize) {
        In value[kTogether];
        MVF_UNROLL
        for (int k = 0; k < kTogether; ++k) {
          const int at = first + k * kWarpSize;
          value[k] = inside && at >= begin && at < end && at < run ? load_written(x + at) : In{0};
        }
        MVF_UNROLL
        for (int k = 0; k < kTogether; ++k) {
          const int at = first + k * kWarpSize;
          if (at < run) store_shared(target + place_of(p, at, each), number_of(value[k]));
        }
      }
    }
    if (p.image_channels < s.channels) load_constant(p, top, left, input);
    sync_block();
  }

  // Where the element `at` of a run lies behind the run's first one.
  static MVF_DEVICE int place_of(const Params& p, int at, int each) {
    if (p.planar) return at * p.shape.channels;
    return each == p.shape.channels ? at : at / each * p.shape.channels + at % each;
  }

  // The last channel: 1 in the image, 0 outside.
  static MVF_DEVICE void load_constant(const Params& p, int top, int left, T* input) {
    for (int i = thread_index(); i < extent_h(p) * extent_w(p); i += kThreads) {
      const int row = top + i / extent_w(p), column = left + i % extent_w(p);
      const bool inside = row >= 0 && row < p.shape.height && column >= 0 && column < p.shape.width;
      store_shared(input + i * p.shape.channels + p.image_channels, from_float<T>(inside ? 1.0f : 0.0f));
    }
  }
};

// Calls visit(K()) with the kernel for windows of so many elements; false, calling nothing, where there is none.
template <class T, class Visit>
bool with_conv2d_stem_kernel(int numbers, bool bytes, const Visit& visit) {
  if (numbers > kConv2dStemNumbers) return false;
  if (!bytes) return numbers <= 32 ? visit(Conv2dStem<T, T, 2>()) : visit(Conv2dStem<T, T, 4>()), true;
  if (numbers <= 32) return visit(Conv2dStem<T, uint8_t, 2>()), true;
  if (numbers <= 48) return visit(Conv2dStem<T, uint8_t, 3>()), true;  // 3x3 over three channels and a constant
  return visit(Conv2dStem<T, uint8_t, 4>()), true;
}

}  // namespace mobilevit_fast::cuda
