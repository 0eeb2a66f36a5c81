// Inverted residual (arXiv 1801.04381) in one kernel: the expanded tensor exists in shared memory only. Without the
// expansion it is a depthwise separable convolution, whose depthwise result exists there only.
//
// A block computes a tile of output pixels of one image. Its input pixels, with the halo of the window, come to shared
// memory once. For 32 expanded channels at a time: expand them on the matrix unit, convolve them from shared memory,
// and add their share of the projection to sums in registers. Halo pixels are expanded by every block that sees them.
#pragma once

#include "fragments.h"
#include "inverted_residual.h"

namespace mobilevit_fast::cuda {

// A tile of kTileH x kTileW output pixels, kRun of a row by each thread where it is convolved. Where it is projected a
// warp has 16 * kRows of the pixels and 8 * kColumns of the output channels. kDepth is the number of input channels,
// rounded up to kMatrixDepth, for which the kernel is made; 0 takes any, and where there is no expansion it counts for
// nothing.
template <class T, bool kExpands, int kStride, int kTileH, int kTileW, int kRun, int kRows, int kColumns, int kDepth>
struct InvertedResidual {
  using Params = InvertedResidualParams;

  static constexpr int kPixels = kTileH * kTileW;
  static constexpr int kThreads = kChunkPairs * (kPixels / kRun);
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kRowWarps = kPixels / kMatrixRows / kRows;
  static constexpr int kOutputs = kWarps / kRowWarps * kColumns * kMatrixColumns;  // of a block
  // With few sums, registers suffice for 16 warps on a multiprocessor.
  static constexpr int kResident = kRows * kColumns <= 8 ? 16 / kWarps : 1;
  static_assert(kTileW % kRun == 0 && kThreads % kWarpSize == 0 && kColumns % 2 == 0);
  static_assert(kRowWarps * kRows * kMatrixRows == kPixels && kWarps % kRowWarps == 0);

  // Numbers from pixel to pixel in shared memory. Rows of `convolved` and of the input are read eight at a time, 16
  // bytes each; of `expanded` half a warp reads one pixel and the other half the pixel of the next thread's run.
  static constexpr int kConvolvedPitch = kChunk + 8;
  static constexpr int expanded_pitch() {
    int pitch = kChunk + 2;
    while (pitch / 2 * kRun * kStride % kWarpSize != kWarpSize / 2) pitch += 2;
    return pitch;
  }
  static constexpr int kExpandedPitch = expanded_pitch();
  static MVF_HOST_DEVICE int input_depth(const Params& p) {
    return kDepth > 0 ? kDepth : round_up(p.channels, kMatrixDepth);
  }
  static MVF_HOST_DEVICE int input_pitch(const Params& p) { return input_depth(p) + 8; }

  static MVF_HOST_DEVICE int input_extent(int outputs, const Params& p) {
    return (outputs - 1) * kStride + (kWindow - 1) * p.dilation + 1;
  }
  static MVF_HOST_DEVICE int input_pixels(const Params& p) {
    return round_up(input_extent(kTileH, p) * input_extent(kTileW, p), kMatrixRows);
  }

  // Blocks beside each other have the same pixels and slices of kOutputs output channels.
  static MVF_HOST_DEVICE int slices(const Params& p) { return ceil_div(p.outputs, kOutputs); }
  static int64_t block_count(const Params& p) {
    return int64_t{1} * p.batch * ceil_div(p.out_h, kTileH) * ceil_div(p.out_w, kTileW) * slices(p);
  }
  static unsigned blocks(const Params& p) { return static_cast<unsigned>(block_count(p)); }
  static size_t shared_bytes(const Params& p) {
    return (kExpands ? shared_size<T>(input_pixels(p) * input_pitch(p)) : 0) +
           shared_size<T>(input_pixels(p) * kExpandedPitch) + shared_size<T>(kPixels * kConvolvedPitch);
  }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    visit_arrays<T>(p, kExpands, visit);
  }

  // The block's output and input pixels in their image, and the first of its output channels.
  struct Tile {
    int image, out_top, out_left, top, left, width, pixels, output;

    MVF_DEVICE explicit Tile(const Params& p) {
      const int across = ceil_div(p.out_w, kTileW), down = ceil_div(p.out_h, kTileH);
      const int index = block_index() / slices(p);
      output = block_index() % slices(p) * kOutputs;
      image = index / (across * down);
      out_top = index / across % down * kTileH, out_left = index % across * kTileW;
      top = out_top * kStride - p.padding, left = out_left * kStride - p.padding;
      width = input_extent(kTileW, p), pixels = input_extent(kTileH, p) * width;
    }

    MVF_DEVICE bool inside(const Params& p, int pixel) const {
      const int row = top + pixel / width, column = left + pixel % width;
      return pixel < pixels && row >= 0 && row < p.height && column >= 0 && column < p.width;
    }
  };

  static MVF_DEVICE void run(const Params& p) {
    const Tile tile(p);
    SharedMemory shared;
    T* input = nullptr;
    if constexpr (kExpands) {
      input = shared.template take<T>(input_pixels(p) * input_pitch(p));
      load_input(p, tile, input);
    }
    T* expanded = shared.template take<T>(input_pixels(p) * kExpandedPitch);
    T* convolved = shared.template take<T>(kPixels * kConvolvedPitch);

    Sums sums = {};
    for (int chunk = 0; chunk * kChunk < p.expanded; ++chunk) {
      if constexpr (kExpands) {
        expand(p, tile, chunk, input, expanded);
      } else {
        copy_chunk(p, tile, chunk, expanded);
      }
      sync_block();
      convolve(p, tile, chunk, expanded, convolved);
      sync_block();
      project(p, tile, chunk, convolved, sums);
    }
    store(p, tile, input, sums);
  }

 private:
  using Sums = float[kRows][kColumns][4];  // of the warp's pixels and output channels: 16 x 8 in each fragment

  static MVF_DEVICE int warp() { return thread_index() / kWarpSize; }
  static MVF_DEVICE int lane() { return thread_index() % kWarpSize; }

  static MVF_DEVICE void load_input(const Params& p, const Tile& tile, T* input) {
    constexpr int kNumbers = sizeof(Bytes16) / sizeof(T);
    const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(tile.image) * p.height * p.width * p.channels;
    const int pieces = input_depth(p) / kNumbers;  // of a pixel, the last of which may be padding
    for (int i = thread_index(); i < input_pixels(p) * pieces; i += kThreads) {
      const int pixel = i / pieces, channel = i % pieces * kNumbers;
      const bool there = tile.inside(p, pixel) && channel < p.channels;
      const int row = tile.top + pixel / tile.width, column = tile.left + pixel % tile.width;
      const int64_t at = there ? (static_cast<int64_t>(row) * p.width + column) * p.channels + channel : 0;
      copy_async(input + pixel * input_pitch(p) + channel, x + at, there);
    }
    commit_async();
    wait_async<0>();
    sync_block();
  }

  // Where nothing is expanded: the chunk's channels of all pixels of the tile, zero outside of the image.
  static MVF_DEVICE void copy_chunk(const Params& p, const Tile& tile, int chunk, T* expanded) {
    const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(tile.image) * p.height * p.width * p.channels;
    for (int i = thread_index(); i < input_pixels(p) * kChunkPairs; i += kThreads) {
      const int pixel = i / kChunkPairs, channel = i % kChunkPairs * 2;
      const int row = tile.top + pixel / tile.width, column = tile.left + pixel % tile.width;
      uint32_t both = 0;
      if (tile.inside(p, pixel) && chunk * kChunk + channel < p.channels) {
        const int64_t at = (static_cast<int64_t>(row) * p.width + column) * p.channels + chunk * kChunk + channel;
        both = load_global(words(x + at));
      }
      store_shared(words(expanded + pixel * kExpandedPitch + channel), both);
    }
  }

  // expanded = activation(scale · (input · weights) + bias) of all pixels of the tile, zero outside of the image.
  static MVF_DEVICE void expand(const Params& p, const Tile& tile, int chunk, const T* input, T* expanded) {
    constexpr int kTiles = kChunk / kMatrixColumns, kTogether = 2;  // tiles of channels; of pixels that share weights
    const int steps = input_depth(p) / kMatrixDepth, pitch = input_pitch(p), row_tiles = input_pixels(p) / kMatrixRows;
    const Bytes16* weights = p.expand_weight + chunk * steps * (kTiles / 2) * kWarpSize + lane();
    for (int first = warp() * kTogether; first < row_tiles; first += kWarps * kTogether) {
      float sum[kTogether][kTiles][4] = {};
      MVF_UNROLL_SOME
      for (int step = 0; step < steps; ++step) {
        uint32_t b[kTiles][2];
        load_weights<kTiles>(weights + step * (kTiles / 2) * kWarpSize, b);
        MVF_UNROLL
        for (int i = 0; i < kTogether; ++i) {
          if (first + i >= row_tiles) break;
          uint32_t a[4];
          load_matrix(a, matrix_row(input + (first + i) * kMatrixRows * pitch + step * kMatrixDepth, pitch, lane()));
          MVF_UNROLL
          for (int n = 0; n < kTiles; ++n) multiply_matrix<T>(sum[i][n], a, b[n]);
        }
      }
      MVF_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        const int channel = n * kMatrixColumns + lane() % 4 * 2;
        const Float2 scale = load_global(p.expand_scale + (chunk * kChunk + channel) / 2);
        const Float2 bias = load_global(p.expand_bias + (chunk * kChunk + channel) / 2);
        MVF_UNROLL
        for (int i = 0; i < kTogether * 2; ++i) {
          if (first + i / 2 >= row_tiles) break;
          const int pixel = (first + i / 2) * kMatrixRows + i % 2 * 8 + lane() / 4;
          const float* both = sum[i / 2][n] + i % 2 * 2;
          const float u = activate(p.activation, both[0] * scale.x + bias.x);
          const float v = activate(p.activation, both[1] * scale.y + bias.y);
          store_shared(words(expanded + pixel * kExpandedPitch + channel), tile.inside(p, pixel) ? pack<T>(u, v) : 0u);
        }
      }
    }
  }

  static MVF_DEVICE void add_product(Float2& sum, Float2 x, Float2 weight) {
    sum.x += x.x * weight.x, sum.y += x.y * weight.y;
  }

  // convolved = activation(scale · depthwise(expanded) + bias): two channels of kRun pixels by each thread.
  static MVF_DEVICE void convolve(const Params& p, const Tile& tile, int chunk, const T* expanded, T* convolved) {
    const int pair = thread_index() % kChunkPairs, first = thread_index() / kChunkPairs * kRun;
    const int row = first / kTileW * kStride, column = first % kTileW * kStride;
    const int channel = chunk * kChunkPairs + pair, channels = round_up(p.expanded, kChunk) / 2;  // in pairs
    const T* corner = expanded + (row * tile.width + column) * kExpandedPitch + pair * 2;
    Float2 sum[kRun] = {};
    for (int kh = 0; kh < kWindow; ++kh) {
      const T* line = corner + kh * p.dilation * tile.width * kExpandedPitch;
      const Float2* weights = p.depthwise_weight + kh * kWindow * channels + channel;
      if (p.dilation == 1) {  // neighbours share what they see
        uint32_t x[(kRun - 1) * kStride + kWindow];
        MVF_UNROLL
        for (int i = 0; i < (kRun - 1) * kStride + kWindow; ++i) x[i] = load_shared(words(line + i * kExpandedPitch));
        MVF_UNROLL
        for (int kw = 0; kw < kWindow; ++kw) {
          const Float2 weight = load_global(weights + kw * channels);
          MVF_UNROLL
          for (int i = 0; i < kRun; ++i) add_product(sum[i], unpack<T>(x[i * kStride + kw]), weight);
        }
        continue;
      }
      for (int kw = 0; kw < kWindow; ++kw) {
        const Float2 weight = load_global(weights + kw * channels);
        MVF_UNROLL
        for (int i = 0; i < kRun; ++i) {
          const int at = (i * kStride + kw * p.dilation) * kExpandedPitch;
          add_product(sum[i], unpack<T>(load_shared(words(line + at))), weight);
        }
      }
    }
    const Float2 scale = load_global(p.depthwise_scale + channel), bias = load_global(p.depthwise_bias + channel);
    MVF_UNROLL
    for (int i = 0; i < kRun; ++i) {
      const float u = activate(p.activation, sum[i].x * scale.x + bias.x);
      const float v = activate(p.activation, sum[i].y * scale.y + bias.y);
      store_shared(words(convolved + (first + i) * kConvolvedPitch + pair * 2), pack<T>(u, v));
    }
  }

  // The warp's first pixel in the tile and its first output channel.
  static MVF_DEVICE int first_pixel() { return warp() % kRowWarps * kRows * kMatrixRows; }
  static MVF_DEVICE int first_output(const Tile& tile) {
    return tile.output + warp() / kRowWarps * kColumns * kMatrixColumns;
  }

  static MVF_DEVICE void project(const Params& p, const Tile& tile, int chunk, const T* convolved, Sums& sums) {
    constexpr int kSteps = kChunk / kMatrixDepth, kPair = 2 * kMatrixColumns;
    const T* rows = convolved + first_pixel() * kConvolvedPitch;
    const int pairs = ceil_div(p.outputs, kPair), first = first_output(tile) / kPair;
    MVF_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      uint32_t a[kRows][4];
      MVF_UNROLL
      for (int m = 0; m < kRows; ++m) {
        const T* corner = rows + m * kMatrixRows * kConvolvedPitch + step * kMatrixDepth;
        load_matrix(a[m], matrix_row(corner, kConvolvedPitch, lane()));
      }
      const Bytes16* weights = p.project_weight + ((chunk * kSteps + step) * pairs + first) * kWarpSize + lane();
      MVF_UNROLL
      for (int n = 0; n < kColumns; n += 2) {
        if (first + n / 2 >= pairs) break;
        uint32_t b[2][2];
        load_weights<2>(weights + n / 2 * kWarpSize, b);
        MVF_UNROLL
        for (int m = 0; m < kRows; ++m) {
          multiply_matrix<T>(sums[m][n], a[m], b[0]);
          multiply_matrix<T>(sums[m][n + 1], a[m], b[1]);
        }
      }
    }
  }

  // y = activation(scale · sums + bias) + x.
  static MVF_DEVICE void store(const Params& p, const Tile& tile, const T* input, const Sums& sums) {
    T* y = static_cast<T*>(p.y) + static_cast<int64_t>(tile.image) * p.out_h * p.out_w * p.outputs;
    MVF_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      const int channel = first_output(tile) + n * kMatrixColumns + lane() % 4 * 2;
      if (channel >= p.outputs) break;
      const Float2 scale = load_global(p.project_scale + channel / 2), bias = load_global(p.project_bias + channel / 2);
      MVF_UNROLL
      for (int half = 0; half < 2 * kRows; ++half) {
        const int pixel = first_pixel() + half * 8 + lane() / 4;
        const int row = tile.out_top + pixel / kTileW, column = tile.out_left + pixel % kTileW;
        if (row >= p.out_h || column >= p.out_w) continue;
        const float* both = sums[half / 2][n] + half % 2 * 2;
        float u = activate(p.project_activation, both[0] * scale.x + bias.x);
        float v = activate(p.project_activation, both[1] * scale.y + bias.y);
        if (kExpands && p.residual) {
          const int at = (pixel / kTileW + p.padding) * tile.width + pixel % kTileW + p.padding;
          const Float2 x = unpack<T>(load_shared(words(input + at * input_pitch(p) + channel)));
          u += x.x, v += x.y;
        }
        const int64_t target = (static_cast<int64_t>(row) * p.out_w + column) * p.outputs + channel;
        store_global(words(y + target), pack<T>(u, v));
      }
    }
  }
};

}  // namespace mobilevit_fast::cuda
