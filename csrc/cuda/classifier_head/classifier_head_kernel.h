// The first half of a classifier head: 1x1 expansion, scale, bias, activation and the mean over an image's pixels. A
// block has an image's pixels in shared memory, some at a time, and takes its output channels through them, 16 a warp;
// the order of the sum never changes.
#pragma once

#include "classifier_head.h"
#include "cuda/conv2d_bias_act/conv2d_bias_act_kernel.h"
#include "cuda/mma/tokens.h"

namespace mobilevit_fast::cuda {

// kRows tiles of 16 pixels at a time.
template <class T, int kRows>
struct ClassifierHead {
  using Params = ClassifierHeadParams;

  static constexpr int kWarps = kClassifierHeadWarps, kThreads = kWarps * kWarpSize;
  static constexpr int kPixels = kRows * kMatrixRows;

  static MVF_HOST_DEVICE int pairs(const Params& p) { return ceil_div(p.outputs, kPairColumns); }
  static MVF_HOST_DEVICE int pairs_of_block(const Params& p) { return ceil_div(pairs(p), p.slices); }
  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.batch * p.slices); }
  static size_t shared_bytes(const Params& p) {
    return shared_size<T>(kPixels * row_pitch(p.channels)) + shared_size<float>(pairs_of_block(p) * kPairColumns);
  }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const size_t padded = static_cast<size_t>(pairs(p)) * kPairColumns;
    visit("x", p.x, static_cast<size_t>(p.batch) * p.pixels * p.channels * sizeof(T));
    visit("mean", p.mean, static_cast<size_t>(p.batch) * p.outputs * sizeof(T));
    visit("weight", p.weight, static_cast<size_t>(expansion(p).weight_pieces()) * sizeof(Bytes16));
    visit("scale", p.scale, padded * sizeof(float));
    visit("bias", p.bias, padded * sizeof(float));
  }

  static MVF_DEVICE void run(const Params& p) {
    const int image = block_index() / p.slices, first_pair = block_index() % p.slices * pairs_of_block(p);
    const int rest = pairs(p) - first_pair, count = rest < pairs_of_block(p) ? rest : pairs_of_block(p);
    const int pitch = row_pitch(p.channels), lane = lane_index();
    SharedMemory shared;
    T* rows = shared.template take<T>(kPixels * pitch);
    float* totals = shared.template take<float>(pairs_of_block(p) * kPairColumns);  // each has one lane that adds to it
    const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(image) * p.pixels * p.channels;
    for (int first = 0; first < p.pixels; first += kPixels) {
      if (first > 0) sync_block();  // the pixels before are read
      load_pixels(p, x, first, pitch, rows);
      for (int pair = warp_index(); pair < count; pair += kWarps) {
        float sum[kRows][2][4] = {};
        multiply<T, kRows, 1>(expansion(p), rows, pitch, first_pair + pair, 1, sum);
        float total[4] = {};
        add_pixels(p, first, first_pair + pair, sum, total);
        MVF_UNROLL
        for (int i = 0; i < 4; ++i) {
          for (int mask = 4; mask < kWarpSize; mask *= 2) total[i] += shuffle_xor(total[i], mask);  // the lane's pixels
          float* to = totals + pair * kPairColumns + lane % 4 * 4 + i;
          if (lane < 4) store_shared(to, first > 0 ? load_shared(to) + total[i] : total[i]);
        }
      }
    }
    sync_block();
    T* mean = static_cast<T*>(p.mean) + static_cast<int64_t>(image) * p.outputs;
    for (int i = thread_index(); i < count * kPairColumns; i += kThreads) {
      const int output = first_pair * kPairColumns + i;
      if (output >= p.outputs) break;
      store_global(mean + output, from_float<T>(load_shared(totals + i) / static_cast<float>(p.pixels)));
    }
  }

 private:
  static MVF_HOST_DEVICE Linear expansion(const Params& p) { return {p.weight, p.scale, p.bias, p.channels, pairs(p)}; }

  static MVF_DEVICE void load_pixels(const Params& p, const T* x, int first, int pitch, T* rows) {
    const int pieces = p.channels / kPieceNumbers;
    for (int i = thread_index(); i < kPixels * pieces; i += kThreads) {
      const int pixel = i / pieces, channel = i % pieces * kPieceNumbers;
      const bool there = first + pixel < p.pixels;
      const int64_t at = there ? static_cast<int64_t>(first + pixel) * p.channels + channel : 0;
      copy_async(rows + pixel * pitch + channel, x + at, there);
    }
    commit_async();
    wait_async<0>();
    sync_block();
  }

  // Adds what becomes of the lane's pixels, in its four neighbouring outputs of a pair.
  static MVF_DEVICE void add_pixels(const Params& p, int first, int pair, const float (&sum)[kRows][2][4],
                                    float (&total)[4]) {
    const int channel = pair * kPairColumns + lane_index() % 4 * 4;
    Float2 scale[2], bias[2];
    load_pairs(p.scale, channel, scale), load_pairs(p.bias, channel, bias);
    MVF_UNROLL
    for (int i = 0; i < 2 * kRows; ++i) {
      if (first + i * 8 + lane_index() / 4 >= p.pixels) continue;
      const int half = i % 2 * 2;
      const Four four = finish(sum[i / 2][0] + half, sum[i / 2][1] + half, scale, bias, p.activation);
      MVF_UNROLL
      for (int k = 0; k < 4; ++k) total[k] += four.value[k];
    }
  }
};

// Calls visit(K()) with the kernel for so many tiles of pixels; false, calling nothing, where there is none.
template <class T, class Visit>
bool with_classifier_head_kernel(int rows, const Visit& visit) {
  if (rows == 4) return visit(ClassifierHead<T, 4>()), true;
  if (rows == 1) return visit(ClassifierHead<T, 1>()), true;
  return false;
}

}  // namespace mobilevit_fast::cuda
