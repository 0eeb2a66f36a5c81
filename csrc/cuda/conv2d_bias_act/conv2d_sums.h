// Accumulators of dense convolutions over channels_last images: an implicit matrix product on the matrix unit.
// Input pixels and weights come to shared memory by cp.async, two steps ahead of what is multiplied.
#pragma once

#include "conv2d_steps.h"

namespace mobilevit_fast::cuda {

template <class T, int kVariant>
struct Conv2dSums {
  static constexpr Conv2dVariant kSizes = kConv2dVariants[kVariant];
  static constexpr int kRows = kSizes.rows, kColumns = kSizes.columns, kUnits = kSizes.units;
  static constexpr int kWarpsM = kSizes.warps_m, kWarpsN = kSizes.warps_n, kWarpsK = kSizes.warps_k;
  static constexpr int kWarps = kWarpsM * kWarpsN * kWarpsK, kThreads = kWarps * kWarpSize;
  static constexpr int kPixels = kMatrixRows * kRows * kWarpsM, kOutputs = kMatrixColumns * kColumns * kWarpsN;
  static constexpr int kColumnPairs = kOutputs / 16;  // of the block
  static constexpr int kDepth = kUnits * kMatrixDepth;
  static constexpr int kNumbers = sizeof(Bytes16) / sizeof(T), kPieces = kDepth / kNumbers;  // of an input pixel
  static_assert(kColumns % 2 == 0 && kThreads % kPieces == 0 && (kPieces == 4 || kPieces == 8));

  static constexpr int kAhead = kConv2dStages - 1;  // steps from a copy to its use

  using Sums = float[kRows][kColumns][4];
  using Tile = Conv2dPixels;
  using Steps = Conv2dSteps<kUnits>;

  // Where an input pixel of the block lies: its number, and row and column, which may lie outside of the image.
  struct alignas(8) Place {
    int pixel;
    uint32_t corner;
  };

  static MVF_DEVICE int lane() { return thread_index() % kWarpSize; }
  static MVF_DEVICE int warp() { return thread_index() / kWarpSize; }
  static MVF_DEVICE int warp_k() { return warp() / (kWarpsM * kWarpsN); }
  // The first pixel of the warp in the tile, and the first of its output channels among the block's.
  static MVF_DEVICE int first_pixel() { return warp() % kWarpsM * kRows * kMatrixRows; }
  static MVF_DEVICE int first_output() { return warp() / kWarpsM % kWarpsN * kColumns * kMatrixColumns; }

  static MVF_HOST_DEVICE int input_pixels(const Conv2dTile& t) { return t.images * t.extent_h * t.extent_w; }
  // Shared memory of the block.
  struct Work {
    Place* places;     // (input pixels,)
    T* input;          // (buffers, input pixels, kDepth), whose pieces are exchanged: see piece_at
    Bytes16* weights;  // (kConv2dStages, group, kUnits, kColumnPairs, kWarpSize)
    float* partial;    // (kWarpsK - 1, warps, kRows * kColumns * 4, kWarpSize), in place of both

    MVF_DEVICE Work(const Conv2dInput& p, SharedMemory& shared) {
      const int pixels = input_pixels(p.tile), pieces = (conv2d_input_span(p) == 1 ? 3 : 2) * pixels * kPieces;
      const int all = pieces + kConv2dStages * p.tile.group * kUnits * kColumnPairs * kWarpSize;
      constexpr int kPartial = (kWarpsK - 1) * kPixels * kOutputs * sizeof(float) / sizeof(Bytes16);
      places = shared.template take<Place>(pixels);
      Bytes16* array = shared.template take<Bytes16>(all > kPartial ? all : kPartial);
      input = reinterpret_cast<T*>(array), weights = array + pieces, partial = reinterpret_cast<float*>(array);
    }
  };
  static size_t shared_bytes(const Conv2dInput& p) {
    const int work = static_cast<int>(conv2d_work_bytes(p.shape, p.tile));
    return shared_size<Place>(input_pixels(p.tile)) + shared_size<char>(work);
  }

  // Leaves the tile's accumulators with the first of the warps that share them; all threads call it.
  static MVF_DEVICE void add(const Conv2dInput& p, const Tile& tile, const Work& work, Sums& sums) {
    find_places(p, tile, work.places);
    const Steps steps(p, tile);
    int from[kRows];  // the input pixel of the lane's row of each tile of pixels
    MVF_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const int at = first_pixel() + i * kMatrixRows + lane() % kMatrixRows;
      const int image = at / (p.tile.height * p.tile.width), row = at / p.tile.width % p.tile.height;
      const int line = (image * p.tile.extent_h + row * p.shape.stride_h) * p.tile.extent_w;
      from[i] = p.tile.gathers ? at : line + at % p.tile.width * p.shape.stride_w;
    }
    sync_block();  // places are found
    typename Steps::Cursor fetched = steps.begin(), multiplied = steps.begin();
    for (int step = -kAhead; step < steps.count; ++step) {
      if (step >= 0) {
        wait_async<kAhead - 1>();
        sync_block();
      }
      if (step + kAhead < steps.count) {
        fetch_weights(p, tile, steps, fetched, work);
        if (steps.span == 1) {
          fetch_input(p, fetched, fetched.stage, steps, work);
        } else if (step == -kAhead) {
          fetch_input(p, fetched, 0, steps, work);
        }
        steps.next_taps(fetched, steps.taps_from(p, steps.tap(p, fetched)));
        steps.next_stage(fetched);
      }
      // The input of the next slice, once nothing reads the one before any more.
      if (steps.span > 1 && step >= 0 && steps.begins_slice(multiplied)) {
        const typename Steps::Cursor next{multiplied.slice + 1, 0, 0, 0};
        if (next.slice * kUnits < steps.units) fetch_input(p, next, next.slice % 2, steps, work);
      }
      commit_async();
      if (step >= 0) multiply(p, steps, multiplied, work, from, sums);
    }
    wait_async<0>();
    sync_block();
    if constexpr (kWarpsK > 1) join(work, sums);
  }

 private:
  static MVF_DEVICE void find_places(const Conv2dInput& p, const Tile& tile, Place* places) {
    const Conv2dShape& s = p.shape;
    const int step_h = p.tile.gathers ? s.stride_h : 1, step_w = p.tile.gathers ? s.stride_w : 1;
    for (int i = thread_index(); i < input_pixels(p.tile); i += kThreads) {
      const int image = tile.image + i / (p.tile.extent_h * p.tile.extent_w);
      const int row = tile.top * s.stride_h - s.padding_h + i / p.tile.extent_w % p.tile.extent_h * step_h;
      const int column = tile.left * s.stride_w - s.padding_w + i % p.tile.extent_w * step_w;
      const uint32_t line = image < s.batch ? static_cast<uint32_t>(row) & 0xffffu : 0x8000u;
      store_shared(places + i,
                   Place{(image * s.height + row) * s.width + column, line | static_cast<uint32_t>(column) << 16});
    }
  }

  // A piece of an input pixel. Pieces change places so that the same one of eight neighbours lies in different banks.
  static MVF_DEVICE T* piece_at(T* input, int pixel, int piece) {
    constexpr int kTogether = 8 / kPieces;  // pixels in all banks
    return input + pixel * kDepth + (piece ^ pixel / kTogether % kPieces) * kNumbers;
  }

  // Starts the copies of the input that a step needs, those of its tap where each has its own, to a buffer.
  static MVF_DEVICE void fetch_input(const Conv2dInput& p, const typename Steps::Cursor& at, int buffer,
                                     const Steps& steps, const Work& work) {
    const Conv2dShape& s = p.shape;
    const int piece = thread_index() % kPieces, unit = at.slice * kUnits + piece / 2;
    if (piece / 2 >= steps.units_of(at.slice)) return;
    const int first_units = ceil_div(s.channels, kMatrixDepth);
    const bool second = unit >= first_units;
    const T* x = static_cast<const T*>(second ? p.x2 : p.x);
    const int channels = second ? s.channels2 : s.channels;
    const int channel = (second ? unit - first_units : unit) * kMatrixDepth + piece % 2 * kNumbers;
    const int row = p.tile.gathers ? at.row * s.dilation_h : 0, column = p.tile.gathers ? at.column * s.dilation_w : 0;
    const int shift = row * s.width + column;
    T* input = work.input + buffer * input_pixels(p.tile) * kDepth;
    for (int pixel = thread_index() / kPieces; pixel < input_pixels(p.tile); pixel += kThreads / kPieces) {
      const Place place = load_shared(work.places + pixel);
      const int h = static_cast<int16_t>(place.corner) + row, w = static_cast<int16_t>(place.corner >> 16) + column;
      const bool there = static_cast<uint32_t>(h) < static_cast<uint32_t>(s.height) &&
                         static_cast<uint32_t>(w) < static_cast<uint32_t>(s.width) && channel < channels;
      const int64_t index = there ? static_cast<int64_t>(place.pixel + shift) * channels + channel : 0;
      copy_async(piece_at(input, pixel, piece), x + index, there);
    }
  }

  static MVF_DEVICE Bytes16* stage_of(const Conv2dInput& p, const typename Steps::Cursor& at, const Work& work) {
    return work.weights + at.stage * p.tile.group * kUnits * kColumnPairs * kWarpSize;
  }

  // Starts the copies of a step's weights.
  static MVF_DEVICE void fetch_weights(const Conv2dInput& p, const Tile& tile, const Steps& steps,
                                       const typename Steps::Cursor& at, const Work& work) {
    const int all_taps = p.shape.kernel_h * p.shape.kernel_w, pairs = ceil_div(p.shape.outputs, 16);
    const int tap = steps.tap(p, at), taps = steps.taps_from(p, tap), units = steps.units_of(at.slice);
    const int first = tile.output / 16;
    Bytes16* weights = stage_of(p, at, work) + lane();
    for (int run = warp(); run < taps * kUnits * kColumnPairs; run += kWarps) {
      const int pair = run % kColumnPairs, unit = run / kColumnPairs % kUnits, i = run / (kColumnPairs * kUnits);
      if (unit >= units) continue;
      const bool there = first + pair < pairs;
      const int64_t row = static_cast<int64_t>(at.slice * kUnits + unit) * all_taps + tap + i;
      const int64_t index = there ? (row * pairs + first + pair) * kWarpSize + lane() : 0;
      copy_async(weights + run * kWarpSize, p.weight + index, there);
    }
  }

  // Adds a step's products; the cursor goes on to the next one.
  static MVF_DEVICE void multiply(const Conv2dInput& p, const Steps& steps, typename Steps::Cursor& at,
                                  const Work& work, const int (&from)[kRows], Sums& sums) {
    const int units = steps.units_of(at.slice), first = steps.tap(p, at), taps = steps.taps_from(p, first);
    T* input = work.input + (steps.span == 1 ? at.stage : at.slice % 2) * input_pixels(p.tile) * kDepth;
    const Bytes16* weights = stage_of(p, at, work) + first_output() / 16 * kWarpSize + lane();
    const auto shift_of = [&](int row, int column) {
      return p.tile.gathers ? 0 : row * p.shape.dilation_h * p.tile.extent_w + column * p.shape.dilation_w;
    };
    steps.next_stage(at);
    if constexpr (kWarpsK == 1) {
      for (int tap = 0; tap < taps; ++tap) {
        const int shift = shift_of(at.row, at.column);
        MVF_UNROLL
        for (int unit = 0; unit < kUnits; ++unit) {
          if (unit >= units) break;
          multiply_unit(input, shift, unit, weights + (tap * kUnits + unit) * kColumnPairs * kWarpSize, from, sums);
        }
        steps.next_tap(at);
      }
    } else {
      int tap = warp_k(), unit = 0;
      while (true) {  // every kWarpsK-th of taps and units
        for (; tap >= taps; tap -= taps) ++unit;
        if (unit >= units) break;
        const int row = (first + tap) / p.shape.kernel_w, column = first + tap - row * p.shape.kernel_w;
        multiply_unit(input, shift_of(row, column), unit, weights + (tap * kUnits + unit) * kColumnPairs * kWarpSize,
                      from, sums);
        tap += kWarpsK;
      }
      steps.next_taps(at, taps);
    }
  }

  static MVF_DEVICE void multiply_unit(T* input, int shift, int unit, const Bytes16* weights, const int (&from)[kRows],
                                       Sums& sums) {
    uint32_t a[kRows][4];
    MVF_UNROLL
    for (int i = 0; i < kRows; ++i) load_matrix(a[i], piece_at(input, from[i] + shift, unit * 2 + lane() / 16));
    MVF_UNROLL
    for (int n = 0; n < kColumns; n += 2) {
      const Bytes16 both = load_shared(weights + n / 2 * kWarpSize);
      const uint32_t b[2][2] = {{both.word[0], both.word[1]}, {both.word[2], both.word[3]}};
      MVF_UNROLL
      for (int i = 0; i < kRows; ++i) {
        multiply_matrix<T>(sums[i][n], a[i], b[0]);
        multiply_matrix<T>(sums[i][n + 1], a[i], b[1]);
      }
    }
  }

  // Adds the accumulators of the warps that share MACs, in their order.
  static MVF_DEVICE void join(const Work& work, Sums& sums) {
    constexpr int kEach = kRows * kColumns * 4 * kWarpSize;
    const int place = warp() % (kWarpsM * kWarpsN) * kEach + lane();
    if (warp_k() > 0) {
      float* to = work.partial + (warp_k() - 1) * kWarpsM * kWarpsN * kEach + place;
      MVF_UNROLL
      for (int i = 0; i < kRows * kColumns * 4; ++i) {
        store_shared(to + i * kWarpSize, sums[i / (kColumns * 4)][i / 4 % kColumns][i % 4]);
      }
    }
    sync_block();
    if (warp_k() > 0) return;
    for (int k = 0; k < kWarpsK - 1; ++k) {
      const float* other = work.partial + k * kWarpsM * kWarpsN * kEach + place;
      MVF_UNROLL
      for (int i = 0; i < kRows * kColumns * 4; ++i) {
        sums[i / (kColumns * 4)][i / 4 % kColumns][i % 4] += load_shared(other + i * kWarpSize);
      }
    }
  }
};

}  // namespace mobilevit_fast::cuda
