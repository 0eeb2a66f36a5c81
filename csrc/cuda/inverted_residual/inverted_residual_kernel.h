// Inverted residual (arXiv 1801.04381) in one kernel: the expanded tensor exists in shared memory only, what the
// depthwise convolution makes of it in registers only. Without the expansion it is a depthwise separable convolution.
//
// A block computes a tile of output pixels of one image. Its input pixels, with the halo of the window, come to shared
// memory once. For 32 expanded channels at a time: expand them on the matrix unit, convolve them from shared memory,
// and add their share of the projection to accumulators in registers. Every block expands the halo pixels that it sees.
//
// The depthwise convolution is done by the matrix unit too, which has cycles to spare where the others have none: of 8
// channels, a tap of the window is a product with a diagonal matrix, and one instruction takes two taps. It accumulates
// in float32, and the results lie in a warp as the projection wants its operand. An infinite number makes its seven
// neighbours no numbers, zero times infinity; the projection would have mixed them all.
#pragma once

#include "cuda/mma/fragments.h"
#include "inverted_residual.h"

namespace mobilevit_fast::cuda {

// A tile of kTileH x kTileW output pixels. A warp has kRows times 16 of them, with all outputs of the block: kColumns
// tiles of 8. kParts times as many warps share the expanded channels, and add up their accumulators in the end. kDepth
// is the number of input channels, rounded up to kMatrixDepth, for which the kernel is made, then without dilation; 0
// takes any of both.
template <class T, bool kExpands, int kStride, int kTileH, int kTileW, int kRows, int kParts, int kColumns, int kDepth>
struct InvertedResidual {
  using Params = InvertedResidualParams;

  static constexpr int kPixels = kTileH * kTileW;
  static constexpr int kRowWarps = kPixels / kMatrixRows / kRows;
  static constexpr int kWarps = kRowWarps * kParts;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kOutputs = kColumns * kMatrixColumns;  // of a block
  // Registers for 16 warps on a multiprocessor; for 12 where a warp sees more pixels or expands any number of channels
  // for many accumulators, for 8 where it has the most of them.
  static constexpr bool kMany = kRows > 1 || (kColumns > 8 && kDepth == 0);
  static constexpr int kResidentWarps = kColumns > 12 ? 8 : (kMany ? 12 : 16);
  static constexpr int kResident = kResidentWarps / kWarps;
  static constexpr bool kFixed = kDepth > 0;
  static_assert(kMatrixRows % kTileW == 0 && kRowWarps * kRows * kMatrixRows == kPixels && kColumns % 2 == 0);
  static_assert(kFixed || kRows == 1, "rows of a warp share pixels without dilation only");

  // Elements from pixel to pixel in shared memory: rows are read eight at a time, 16 bytes each.
  static constexpr int kExpandedPitch = kChunk + 8;
  static MVF_HOST_DEVICE int input_depth(const Params& p) {
    return kFixed ? kDepth : round_up(p.channels, kMatrixDepth);
  }
  static MVF_HOST_DEVICE int input_pitch(const Params& p) { return input_depth(p) + 8; }
  static MVF_HOST_DEVICE int dilation(const Params& p) { return kFixed ? 1 : p.dilation; }
  static MVF_HOST_DEVICE int extent(int outputs, const Params& p) {
    return (outputs - 1) * kStride + (kWindow - 1) * dilation(p) + 1;
  }
  static MVF_HOST_DEVICE int width(const Params& p) { return extent(kTileW, p); }
  static MVF_HOST_DEVICE int pixels(const Params& p) { return extent(kTileH, p) * width(p); }
  static MVF_HOST_DEVICE int input_pixels(const Params& p) { return round_up(pixels(p), kMatrixRows); }
  static MVF_HOST_DEVICE int expanded_numbers(const Params& p) { return input_pixels(p) * kExpandedPitch; }

  // Blocks beside each other have the same pixels and slices of kOutputs output channels.
  static MVF_HOST_DEVICE int slices(const Params& p) { return ceil_div(p.outputs, kOutputs); }
  static int64_t block_count(const Params& p) {
    return int64_t{1} * p.batch * ceil_div(p.out_h, kTileH) * ceil_div(p.out_w, kTileW) * slices(p);
  }
  static unsigned blocks(const Params& p) { return static_cast<unsigned>(block_count(p)); }
  // Of all parts; in the end one part's accumulators, where there are several, take the expanded pixels' place.
  static MVF_HOST_DEVICE int work_numbers(const Params& p) {
    constexpr int kSums = kParts > 1 ? kPixels * kOutputs * static_cast<int>(sizeof(float) / sizeof(T)) : 0;
    return kParts * expanded_numbers(p) > kSums ? kParts * expanded_numbers(p) : kSums;
  }
  static size_t shared_bytes(const Params& p) {
    return shared_size<uint8_t>(input_pixels(p)) + (kExpands ? shared_size<T>(input_pixels(p) * input_pitch(p)) : 0) +
           shared_size<T>(work_numbers(p));
  }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    visit_arrays<T>(p, kExpands, visit);
  }

  static MVF_DEVICE void run(const Params& p) {
    const InvertedResidual block(p);
    Sums sums = {};
    block.add_chunks(sums);
    if constexpr (kParts > 1) block.add_parts(sums);
    if (block.part_ == 0) block.store(sums);
  }

 private:
  using Sums = float[kRows][kColumns][4];  // of the warp's pixels and output channels: 16 x 8 in each fragment

  // Input pixels lie in shared memory row by row; with stride 2, those of even columns come before those of odd ones,
  // since a window never sees both at once.
  struct Position {
    int row, column;
  };
  MVF_DEVICE Position position(int index) const {
    const int row = index / width(p_), at = index % width(p_);
    if (kStride == 1) return {row, at};
    const int even = (width(p_) + 1) / 2;
    return {row, at < even ? 2 * at : 2 * (at - even) + 1};
  }
  MVF_DEVICE int column_offset(int column) const {
    return kStride == 1 ? column : column / 2 + column % 2 * ((width(p_) + 1) / 2);
  }

  MVF_DEVICE explicit InvertedResidual(const Params& p)
      : p_(p),
        lane_(thread_index() % kWarpSize),
        row_warp_(thread_index() / kWarpSize % kRowWarps),
        part_(thread_index() / kWarpSize / kRowWarps) {
    const int across = ceil_div(p.out_w, kTileW), down = ceil_div(p.out_h, kTileH), index = block_index() / slices(p);
    image_ = index / (across * down), output_ = block_index() % slices(p) * kOutputs;
    out_top_ = index / across % down * kTileH, out_left_ = index % across * kTileW;
    top_ = out_top_ * kStride - p.padding, left_ = out_left_ * kStride - p.padding;

    SharedMemory shared;
    inside_ = shared.template take<uint8_t>(input_pixels(p));
    if constexpr (kExpands) {
      input_ = shared.template take<T>(input_pixels(p) * input_pitch(p));
      load_pixels(0, input_depth(p), input_, input_pitch(p), thread_index(), kThreads);
      commit_async();
      for (int i = thread_index(); i < input_pixels(p); i += kThreads) {
        store_shared(inside_ + i, static_cast<uint8_t>(inside(position(i)) && i < pixels(p)));
      }
    }
    expanded_ = shared.template take<T>(work_numbers(p));
    shared_sums_ = reinterpret_cast<float*>(expanded_);
    expanded_ += part_ * expanded_numbers(p);
    find_offsets();
    if constexpr (kExpands) {
      wait_async<0>();
      sync_block();
    }
  }

  MVF_DEVICE bool inside(Position at) const {
    const int row = top_ + at.row, column = left_ + at.column;
    return row >= 0 && row < p_.height && column >= 0 && column < p_.width;
  }

  // Channels of all pixels of the tile, zero outside of the image.
  MVF_DEVICE void load_pixels(int first, int channels, T* target, int pitch, int thread, int threads) const {
    const T* x = static_cast<const T*>(p_.x) + static_cast<int64_t>(image_) * p_.height * p_.width * p_.channels;
    const int pieces = channels / kPieceNumbers;  // of a pixel, the last of which may be padding
    for (int i = thread; i < input_pixels(p_) * pieces; i += threads) {
      const int pixel = i / pieces, piece = i % pieces * kPieceNumbers, channel = first + piece;
      const Position at = position(pixel);
      const bool there = inside(at) && pixel < pixels(p_) && channel < p_.channels;
      const int64_t index =
          (static_cast<int64_t>(top_ + at.row) * p_.width + left_ + at.column) * p_.channels + channel;
      copy_async(target + pixel * pitch + piece, x + (there ? index : 0), there);
    }
  }

  MVF_DEVICE void add_chunks(Sums& sums) const {
    const int chunks = ceil_div(p_.expanded, kChunk);
    for (int first = 0; first < chunks; first += kParts) {
      const int chunk = first + part_;
      if (chunk < chunks) {
        if constexpr (!kExpands) {
          const int thread = row_warp_ * kWarpSize + lane_;
          load_pixels(chunk * kChunk, kChunk, expanded_, kExpandedPitch, thread, kRowWarps * kWarpSize);
          commit_async();
          wait_async<0>();
        } else if (p_.activation == Activation::silu) {
          expand<true>(chunk);
        } else {
          expand<false>(chunk);
        }
      }
      sync_block();
      if (chunk < chunks) {
        if (p_.activation == Activation::silu) {
          convolve_and_project<true>(chunk, sums);
        } else {
          convolve_and_project<false>(chunk, sums);
        }
      }
      sync_block();
    }
  }

  // expanded = activation(scale · (input · weights) + bias) of all pixels of the tile, zero outside of the image.
  template <bool kSilu>
  MVF_DEVICE void expand(int chunk) const {
    constexpr int kTiles = kColumns > 8 ? 2 : 4, kHalves = kChunk / kMatrixColumns / kTiles;
    constexpr bool kKept = kFixed && kDepth * kColumns <= 768;  // weights in registers for all pixels
    constexpr int kSteps = kKept ? kDepth / kMatrixDepth : 1;
    const int steps = input_depth(p_) / kMatrixDepth, pitch = input_pitch(p_);
    const Bytes16* weights = p_.expand_weight + chunk * steps * (kChunk / kPairColumns) * kWarpSize + lane_;
    const T* rows = matrix_row(input_, pitch, lane_);
    MVF_UNROLL
    for (int half = 0; half < kHalves; ++half) {
      uint32_t b[kSteps][kTiles][2];
      const auto load = [&](int step, uint32_t (&into)[kTiles][2]) {
        load_weights<kTiles>(weights + (step * (kChunk / kPairColumns) + half * kTiles / 2) * kWarpSize, into);
      };
      if constexpr (kKept) {
        MVF_UNROLL
        for (int step = 0; step < kSteps; ++step) load(step, b[step]);
      }
      MVF_NO_UNROLL
      for (int tile = row_warp_; tile * kMatrixRows < input_pixels(p_); tile += kRowWarps) {
        float sum[kTiles][4] = {};
        const auto multiply = [&](int step, const uint32_t (&with)[kTiles][2]) {
          uint32_t a[4];
          load_matrix(a, rows + tile * kMatrixRows * pitch + step * kMatrixDepth);
          MVF_UNROLL
          for (int n = 0; n < kTiles; ++n) multiply_matrix<T>(sum[n], a, with[n]);
        };
        if constexpr (kKept) {
          MVF_UNROLL
          for (int step = 0; step < kSteps; ++step) multiply(step, b[step]);
        } else {
          MVF_UNROLL_SOME
          for (int step = 0; step < steps; ++step) {
            load(step, b[0]);
            multiply(step, b[0]);
          }
        }
        const int pixel = tile * kMatrixRows + lane_ / 4;  // and the eighth one behind it
        const bool there[2] = {load_shared(inside_ + pixel) != 0, load_shared(inside_ + pixel + 8) != 0};
        MVF_UNROLL
        for (int n = 0; n < kTiles; ++n) {
          const int channel = (half * kTiles + n) * kMatrixColumns + lane_ % 4 * 2,
                    pair = (chunk * kChunk + channel) / 2;
          const Affine<kSilu> affine(load_global(p_.expand_scale + pair), load_global(p_.expand_bias + pair));
          MVF_UNROLL
          for (int i = 0; i < 2; ++i) {
            const Float2 y = affine(p_.activation, sum[n][2 * i], sum[n][2 * i + 1]);
            store_shared(words(expanded_ + (pixel + i * 8) * kExpandedPitch + channel),
                         there[i] ? pack<T>(y.x, y.y) : 0u);
          }
        }
      }
    }
  }

  // What a warp sees of 8 expanded channels: for every input row of its windows, three shifts by a tap; 16 pixels each,
  // half of what the matrix unit takes at once. The rows of its windows share some.
  static constexpr int kStep = kMatrixRows / kTileW * kStride;  // input rows from one 16 pixels to the next
  static_assert(kRows == 1 || kStep < kWindow, "every row of the windows is seen");
  static constexpr int kViews = ((kRows - 1) * kStep + kWindow) * kWindow;
  static constexpr int kLoads = (kViews + 1) / 2;  // two views each
  static constexpr int kTaps = kWindow * kWindow, kTapPairs = (kTaps + 1) / 2;

  static MVF_HOST_DEVICE constexpr int view(int row, int tap) {
    return row * kStep * kWindow + (tap < kTaps ? tap : kTaps - 1);
  }

  // Where in the expanded pixels a lane finds its row of each load.
  MVF_DEVICE void find_offsets() {
    const int pixel = row_warp_ * kRows * kMatrixRows + lane_ % kMatrixRows;
    const int first = pixel / kTileW * kStride * width(p_) + pixel % kTileW;
    MVF_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int second = 2 * i + 1 < kViews ? 2 * i + 1 : 2 * i, view = lane_ < kMatrixRows ? 2 * i : second;
      offsets_[i] = (first + view / kWindow * dilation(p_) * width(p_) + column_offset(view % kWindow * dilation(p_))) *
                    kExpandedPitch;
    }
  }

  // sums += activation(scale · depthwise(expanded) + bias) · weights.
  template <bool kSilu>
  MVF_DEVICE void convolve_and_project(int chunk, Sums& sums) const {
    constexpr int kGroups = kMatrixDepth / kMatrixColumns;  // of 8 channels, which make the depth of one instruction
    const int pairs = ceil_div(p_.outputs, kPairColumns), pair = output_ / kPairColumns;
    MVF_UNROLL
    for (int step = 0; step < kChunk / kMatrixDepth; ++step) {
      uint32_t a[kRows][4];
      MVF_UNROLL
      for (int group = 0; group < kGroups; ++group) {
        convolve<kSilu>(chunk * (kChunk / kMatrixColumns) + step * kGroups + group,
                        expanded_ + (step * kGroups + group) * kMatrixColumns, 2 * group, a);
      }
      const Bytes16* weights =
          p_.project_weight + ((chunk * (kChunk / kMatrixDepth) + step) * pairs + pair) * kWarpSize + lane_;
      MVF_UNROLL
      for (int n = 0; n < kColumns; n += 2) {
        if (pair + n / 2 >= pairs) break;
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

  // Eight channels of the warp's pixels, as a half of the operand `a`.
  template <bool kSilu>
  MVF_DEVICE void convolve(int group, const T* expanded, int half, uint32_t (&a)[kRows][4]) const {
    // A lane holds two elements of two taps' matrices, of which one is on the diagonal for a quarter of the lanes.
    uint32_t taps[kTapPairs + 1][2];
    const int channel = lane_ / 4;
    const bool diagonal = lane_ % 4 == channel / 2;
    MVF_UNROLL
    for (int i = 0; i < kDepthwisePieces; ++i) {
      Bytes16 two = {};
      if (diagonal) two = load_global(p_.depthwise_weight + (group * kMatrixColumns + channel) * kDepthwisePieces + i);
      taps[2 * i][0] = two.word[0], taps[2 * i][1] = two.word[1];
      taps[2 * i + 1][0] = two.word[2], taps[2 * i + 1][1] = two.word[3];
    }
    const int pair = group * kMatrixColumns / 2 + lane_ % 4;
    const Affine<kSilu> affine(load_global(p_.depthwise_scale + pair), load_global(p_.depthwise_bias + pair));
    uint32_t seen[2 * kLoads][2];
    MVF_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      uint32_t both[4];
      load_matrix(both, expanded + offsets_[i]);
      seen[2 * i][0] = both[0], seen[2 * i][1] = both[1];
      seen[2 * i + 1][0] = both[2], seen[2 * i + 1][1] = both[3];
    }
    float sum[kRows][4] = {};
    MVF_UNROLL
    for (int i = 0; i < kTapPairs; ++i) {
      MVF_UNROLL
      for (int m = 0; m < kRows; ++m) {  // rows in turn: none waits for its last product
        const int one = view(m, 2 * i), other = view(m, 2 * i + 1);
        const uint32_t operand[4] = {seen[one][0], seen[one][1], seen[other][0], seen[other][1]};
        multiply_matrix<T>(sum[m], operand, taps[i]);
      }
    }
    MVF_UNROLL
    for (int m = 0; m < kRows; ++m) {
      const Float2 upper = affine(p_.activation, sum[m][0], sum[m][1]);
      const Float2 lower = affine(p_.activation, sum[m][2], sum[m][3]);
      a[m][half] = pack<T>(upper.x, upper.y), a[m][half + 1] = pack<T>(lower.x, lower.y);
    }
  }

  // The first part's accumulators become those of all.
  MVF_DEVICE void add_parts(Sums& sums) const {
    float* mine = shared_sums_ + row_warp_ * (kRows * kColumns * 4 * kWarpSize) + lane_;
    for (int part = 1; part < kParts; ++part) {
      MVF_UNROLL
      for (int i = 0; i < kRows * kColumns * 4; ++i) {
        if (part_ == part) store_shared(mine + i * kWarpSize, sums[i / 4 / kColumns][i / 4 % kColumns][i % 4]);
      }
      sync_block();
      MVF_UNROLL
      for (int i = 0; i < kRows * kColumns * 4; ++i) {
        if (part_ == 0) sums[i / 4 / kColumns][i / 4 % kColumns][i % 4] += load_shared(mine + i * kWarpSize);
      }
      sync_block();
    }
  }

  // y = activation(scale · sums + bias) + x.
  MVF_DEVICE void store(const Sums& sums) const {
    T* y = static_cast<T*>(p_.y) + static_cast<int64_t>(image_) * p_.out_h * p_.out_w * p_.outputs;
    MVF_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      const int channel = output_ + n * kMatrixColumns + lane_ % 4 * 2;
      if (channel >= p_.outputs) break;
      const Affine<false> affine(load_global(p_.project_scale + channel / 2),
                                 load_global(p_.project_bias + channel / 2));
      MVF_UNROLL
      for (int half = 0; half < 2 * kRows; ++half) {
        const int pixel = row_warp_ * kRows * kMatrixRows + half * 8 + lane_ / 4;
        const int row = out_top_ + pixel / kTileW, column = out_left_ + pixel % kTileW;
        if (row >= p_.out_h || column >= p_.out_w) continue;
        const float* both = sums[half / 2][n] + half % 2 * 2;
        Float2 value = affine(p_.project_activation, both[0], both[1]);
        if (kExpands && kStride == 1 && p_.residual) {
          const int at = (pixel / kTileW + p_.padding) * width(p_) + pixel % kTileW + p_.padding;
          const Float2 x = unpack<T>(load_shared(words(input_ + at * input_pitch(p_) + channel)));
          value.x += x.x, value.y += x.y;
        }
        const int64_t target = (static_cast<int64_t>(row) * p_.out_w + column) * p_.outputs + channel;
        store_global(words(y + target), pack<T>(value.x, value.y));
      }
    }
  }

  const Params& p_;
  int lane_, row_warp_, part_;
  int image_, out_top_, out_left_, top_, left_, output_;  // the block's output and input pixels, and its first output
  uint8_t* inside_;                                       // of every input pixel of the tile, whether the image has it
  T* input_ = nullptr;
  T* expanded_;
  float* shared_sums_;
  int offsets_[kLoads];
};

}  // namespace mobilevit_fast::cuda
