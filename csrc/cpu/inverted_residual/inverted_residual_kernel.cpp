// Inverted residual over channels_last images. Compiled once per instruction set, see simd.h.
//
// A strip of output rows is computed a few rows at a time. The expanded rows that the depthwise window still needs are
// kept in a ring, so each is computed once; ring and depthwise result fit the second-level cache.
#include "cpu/gemm/gemm.h"
#include "cpu/gemm/pixels.h"
#include "inverted_residual.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// The depthwise convolution of one group of output rows. `rows` holds the address of every input row that a window
// meets, each with zeros for the padding at both ends; pixels are `channels` apart, a multiple of 16.
struct Depthwise {
  const float *weight, *scale, *bias;
  int64_t channels;
  Activation activation;
};

template <int kCount>
MVF_INLINE void finish(const Depthwise& d, int64_t channel, Float (&sum)[kCount]) {
  const Float scale = load_unaligned<Float>(d.scale + channel), bias = load_unaligned<Float>(d.bias + channel);
  MVF_UNROLL
  for (int i = 0; i < kCount; ++i) sum[i] = sum[i] * scale + bias;
  activate<kCount>(d.activation, sum);
}

// kRows x kColumns outputs of a 3x3 window without dilation, all channels. `y` has `y_stride` elements per row.
template <int kStride, int kRows, int kColumns>
__attribute__((noinline)) void depthwise_tile(const Depthwise& shared, const float* const* rows, int64_t column,
                                              Factor* y, int64_t y_stride) {
  constexpr int kInRows = (kRows - 1) * kStride + 3, kInColumns = (kColumns - 1) * kStride + 3;
  const Depthwise d = shared;
  const float* x[kInRows];
  MVF_UNROLL
  for (int row = 0; row < kInRows; ++row) x[row] = rows[row] + column * kStride * d.channels;
  for (int64_t channel = 0; channel < d.channels; channel += kLanes) {
    Float sum[kRows * kColumns] = {};
    Float w[9];
    const float* tap = opaque(d.weight + channel);
    MVF_UNROLL
    for (int i = 0; i < 9; ++i, tap += d.channels) w[i] = load_unaligned<Float>(tap);
    MVF_UNROLL
    for (int row = 0; row < kInRows; ++row) {
      const float* pixel = opaque(x[row] + channel);
      MVF_UNROLL
      for (int c = 0; c < kInColumns; ++c, pixel += d.channels) {
        const Float value = load_unaligned<Float>(pixel);
        MVF_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const int kh = row - r * kStride;
          if (kh < 0 || kh >= 3) continue;
          MVF_UNROLL
          for (int o = 0; o < kColumns; ++o) {
            const int kw = c - o * kStride;
            if (kw >= 0 && kw < 3) sum[r * kColumns + o] += value * w[kh * 3 + kw];
          }
        }
      }
    }
    finish(d, channel, sum);
    MVF_UNROLL
    for (int r = 0; r < kRows; ++r) {
      Factor* target = opaque(y + r * y_stride + channel);
      MVF_UNROLL
      for (int o = 0; o < kColumns; ++o, target += d.channels) store_vector(target, sum[r * kColumns + o]);
    }
  }
}

// Any window: kColumns outputs of one row. `rows` holds one address per row of the kernel. kChecked: they have `width`
// pixels, of which the first is `left` pixels behind the first that a window meets; what lies outside is zero.
template <int kColumns, bool kChecked>
__attribute__((noinline)) void general_tile(const Depthwise& shared, const Window& window, const float* const* rows,
                                            int64_t left, int64_t width, int64_t column, Factor* y) {
  const Depthwise d = shared;
  for (int64_t channel = 0; channel < d.channels; channel += kLanes) {
    Float sum[kColumns] = {};
    for (int64_t kh = 0; kh < window.kernel_h; ++kh) {
      for (int64_t kw = 0; kw < window.kernel_w; ++kw) {
        const Float w = load_unaligned<Float>(d.weight + (kh * window.kernel_w + kw) * d.channels + channel);
        const int64_t first = column * window.stride_w + kw * window.dilation_w - (kChecked ? left : 0);
        const float* line = rows[kh] + channel;
        if constexpr (!kChecked) line += first * d.channels;
        MVF_UNROLL
        for (int o = 0; o < kColumns; ++o) {
          if constexpr (kChecked) {
            const int64_t at = first + o * window.stride_w;
            if (at >= 0 && at < width) sum[o] += load_unaligned<Float>(line + at * d.channels) * w;
          } else {
            sum[o] += load_unaligned<Float>(line) * w;
            line += window.stride_w * d.channels;
          }
        }
      }
    }
    finish(d, channel, sum);
    MVF_UNROLL
    for (int o = 0; o < kColumns; ++o) store_vector(y + o * d.channels + channel, sum[o]);
  }
}

constexpr int kColumns = 4;

template <int kStride, int kRows>
void depthwise_rows(const Depthwise& d, const float* const* rows, int64_t width, Factor* y, int64_t y_stride) {
  for (int64_t start = 0; start < width; start += kColumns) {
    const int64_t column = smaller(start, width - kColumns);  // the last tile overlaps
    depthwise_tile<kStride, kRows, kColumns>(d, rows, column, y + column * d.channels, y_stride);
  }
}

template <bool kChecked>
void general_row(const Depthwise& d, const Window& window, const float* const* rows, int64_t left, int64_t width,
                 int64_t outputs, Factor* y) {
  int64_t column = 0;
  for (; column + kColumns <= outputs; column += kColumns) {
    general_tile<kColumns, kChecked>(d, window, rows, left, width, column, y + column * d.channels);
  }
  for (; column < outputs; ++column) {
    general_tile<1, kChecked>(d, window, rows, left, width, column, y + column * d.channels);
  }
}

// Memory of one task. Also counts it, without memory.
template <class T>
struct Strip {
  const InvertedResidualParams& p;
  const Window& window;
  int64_t padded, group, ring_rows, ring_width;
  int64_t
      margin;   // zeros at both ends of a row of the ring: the padding, or none where that is more than rows are long
  bool direct;  // pixels of x can be read where they are
  float *ring, *zeros;
  Factor *input, *spatial;
  const float** window_rows;  // one address per input row that a pair of output rows meets
  const Word** in;            // one address per pixel: of x or its copy,
  float** expanded;           // of its expansion in the ring,
  const Word** projected;     // of the depthwise result,
  T** out;                    // of y,
  const Factor** skip;        // and of what is added to it
  int64_t bytes;

  Strip(const InvertedResidualParams& params, void* block) : p(params), window(params.window) {
    padded = round_up(p.expanded, kBlock);
    group = smaller(p.rows_per_task, larger(2, ceil_div(48, p.out_w)));
    ring_rows = smaller(p.x.height, (group - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1);
    margin = 2 * window.padding_w <= p.x.width + p.out_w + kBlock ? window.padding_w : 0;
    ring_width = p.x.width + 2 * margin;
    direct = sizeof(T) == sizeof(Factor) && p.x.channel_stride == 1;
    Arena arena(block);
    ring = arena.take<float>(ring_rows, ring_width, padded);
    zeros = arena.take<float>(ring_width, padded);
    input = arena.take<Factor>(direct ? 0 : ring_rows, p.x.width, p.x.channels);
    spatial = arena.take<Factor>(group, p.out_w, padded);
    window_rows = arena.take<const float*>(sum_of(window.kernel_h, 2));
    in = arena.take<const Word*>(ring_rows, p.x.width);
    expanded = arena.take<float*>(ring_rows, p.x.width);
    projected = arena.take<const Word*>(group, p.out_w);
    out = arena.take<T*>(group, p.out_w);
    skip = arena.take<const Factor*>(group, p.out_w);
    bytes = arena.bytes();
  }

  float* ring_row(int64_t row) const { return ring + row % ring_rows * ring_width * padded; }

  const Factor* input_row(const T* image, int64_t row) const {
    return direct ? (const Factor*)(image + row * p.x.row_stride) : input + row % ring_rows * p.x.width * p.x.channels;
  }
  int64_t input_stride() const { return direct ? p.x.pixel_stride : p.x.channels; }

  void prepare() const {
    fill_zero(zeros, ring_width * padded);
    for (int64_t row = 0; row < ring_rows; ++row) {
      float* line = ring_row(row);
      if (!p.expands) {  // nothing else writes the padding channels
        fill_zero(line, ring_width * padded);
        continue;
      }
      fill_zero(line, margin * padded);
      fill_zero(line + (margin + p.x.width) * padded, margin * padded);
    }
    for (int64_t i = 0; i < group * p.out_w; ++i) projected[i] = (const Word*)(spatial + i * padded);
  }

  void expand(const T* image, int64_t begin, int64_t end) const {
    const int64_t width = p.x.width, channels = p.x.channels, depth = channels / kWordFactors;
    float** target = expanded;
    const Word** source = in;
    for (int64_t row = begin; row < end; ++row) {
      const T* x = image + row * p.x.row_stride;
      float* line = ring_row(row) + margin * padded;
      if (!p.expands) {
        copy_pixels<T>(x, p.x.pixel_stride, p.x.channel_stride, width, channels, line, padded);
        continue;
      }
      const Factor* pixel = input_row(image, row);
      if (!direct) {
        copy_pixels<T>(x, p.x.pixel_stride, p.x.channel_stride, width, channels, (Factor*)pixel, channels);
      }
      for (int64_t i = 0; i < width; ++i, pixel += input_stride(), line += padded) {
        *source++ = (const Word*)pixel, *target++ = line;
      }
    }
    if (!p.expands || begin >= end) return;
    const Segment segment{0, 0};
    const PixelOutput<float> output{expanded, nullptr, nullptr, nullptr, padded, p.expand_activation};
    multiply_pixels<float>({in, &segment, 1, depth}, (end - begin) * width, depth, p.packed, output);
  }

  void convolve(const Depthwise& d, int64_t row, int64_t count) const {
    const bool dense = window.kernel_h == 3 && window.kernel_w == 3 && window.stride_h == window.stride_w &&
                       window.stride_h <= 2 && window.dilation_h == 1 && window.dilation_w == 1 &&
                       p.out_w >= kColumns && margin == window.padding_w;
    const int64_t left = window.padding_w - margin;
    const int64_t y_stride = p.out_w * padded;
    for (int64_t done = 0; done < count;) {
      const bool two = dense && done + 2 <= count;
      const int64_t needed = two ? window.kernel_h + window.stride_h : window.kernel_h;
      for (int64_t i = 0; i < needed; ++i) {
        const int64_t line = (row + done) * window.stride_h - window.padding_h + i * window.dilation_h;
        window_rows[i] = line >= 0 && line < p.x.height ? ring_row(line) : zeros;
      }
      Factor* y = spatial + done * y_stride;
      if (!dense) {
        (left > 0 ? general_row<true> : general_row<false>)(d, window, window_rows, left, ring_width, p.out_w, y);
      } else if (window.stride_h == 1) {
        (two ? depthwise_rows<1, 2> : depthwise_rows<1, 1>)(d, window_rows, p.out_w, y, y_stride);
      } else {
        (two ? depthwise_rows<2, 2> : depthwise_rows<2, 1>)(d, window_rows, p.out_w, y, y_stride);
      }
      done += two ? 2 : 1;
    }
  }

  void project(const T* image, T* y, int64_t row, int64_t count, const float* packed) const {
    T* target = y + row * p.out_w * p.outputs;
    for (int64_t i = 0; i < count * p.out_w; ++i, target += p.outputs) out[i] = target;
    if (p.residual) {
      for (int64_t r = 0; r < count; ++r) {
        const Factor* x = input_row(image, row + r);
        for (int64_t i = 0; i < p.out_w; ++i, x += input_stride()) skip[r * p.out_w + i] = x;
      }
    }
    const Segment segment{0, 0};
    const PixelOutput<T> output{out, p.residual ? skip : nullptr, nullptr, nullptr, p.outputs, p.project_activation};
    // Of an image of a few pixels PyTorch computes the products like those of a vector, in shorter sums.
    constexpr int64_t kFewPixels = 16, kShortSum = 16 / kWordFactors;
    const int64_t sum_length = p.out_h * p.out_w < kFewPixels ? kShortSum : kSumLength;
    const int64_t depth = p.expanded / kWordFactors;
    multiply_pixels<T>({projected, &segment, 1, depth, sum_length}, count * p.out_w, depth, packed, output);
  }

  void run(const T* image, T* y, int64_t begin, int64_t end) const {
    const int64_t taps = window.kernel_h * window.kernel_w;
    const float* weight = p.packed + (p.expands ? panel_floats(p.x.channels / kWordFactors, p.expanded) : 0);
    const Depthwise d{weight, weight + taps * padded, weight + (taps + 1) * padded, padded, p.depthwise_activation};
    const float* packed = weight + depthwise_floats(taps, p.expanded);
    int64_t next = larger(0, begin * window.stride_h - window.padding_h);  // first row that is not in the ring
    for (int64_t row = begin; row < end; row += group) {
      const int64_t count = smaller(group, end - row);
      const int64_t first = row * window.stride_h - window.padding_h;
      const int64_t last =
          (row + count - 1) * window.stride_h - window.padding_h + (window.kernel_h - 1) * window.dilation_h;
      next = larger(next, first);
      const int64_t stop = smaller(p.x.height, last + 1);
      expand(image, next, stop);
      next = larger(next, stop);
      convolve(d, row, count);
      project(image, y, row, count, packed);
    }
  }
};

template <class T>
void run(const InvertedResidualParams& p, int64_t begin, int64_t end) {
  [[maybe_unused]] const TileScope tiles;
  const int64_t bytes = Strip<T>(p, nullptr).bytes;
  const Strip<T> strip(p, thread_scratch(bytes));
  strip.prepare();
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / strips(p), row = task % strips(p) * p.rows_per_task;
    strip.run((const T*)p.x.data + image * p.x.image_stride, (T*)p.y + image * p.out_h * p.out_w * p.outputs, row,
              smaller(row + p.rows_per_task, p.out_h));
  }
}

}  // namespace

void inverted_residual(const InvertedResidualParams& p, int64_t begin, int64_t end) {
  if constexpr (!kPairs) {
    if (p.element == Element::float32) return run<float>(p, begin, end);
  }
  run<BFloat16>(p, begin, end);
}

}  // namespace mobilevit_fast::cpu::MVF_ISA
