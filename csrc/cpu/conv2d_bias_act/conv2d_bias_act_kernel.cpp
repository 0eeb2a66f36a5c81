// Dense convolution as a matrix product over pixels. Compiled once per instruction set, see simd.h.
//
// The input rows that a group of output rows meets are copied, as factors and with their padding, into lines that fit
// the second-level cache; there the channels of two inputs lie side by side. The factors of an output pixel are then
// runs of consecutive elements, one per row of the window.
#include "conv2d_groups.h"
#include "cpu/gemm/gemm.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// Taps [begin, end) of a window in one direction.
struct Taps {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};

// Those that meet an image of `size` for any of the outputs: tap 0 of the first output is at `origin`, of the last one
// `reach` further.
Taps taps_inside(int64_t kernel, int64_t dilation, int64_t origin, int64_t reach, int64_t size) {
  Taps taps{0, kernel};
  while (taps.begin < taps.end && origin + taps.begin * dilation + reach < 0) ++taps.begin;
  while (taps.begin < taps.end && origin + (taps.end - 1) * dilation >= size) --taps.end;
  return taps;
}

// MACs after which an accumulator is put aside: where all of them are few, none is; otherwise at whole parts of a
// segment. Which rows of the window a group leaves out, and with them the number of threads, then moves no end of
// another one. Of an image of a few pixels, or of a few outputs, PyTorch computes the products like those of a vector,
// in shorter sums.
int64_t sum_length(const Conv2dBiasActParams& p, int64_t depth, int64_t segment) {
  constexpr int64_t kFewPixels = 16;
  const bool few = p.out_h * p.out_w < kFewPixels || p.outputs < kBlock;
  const int64_t most = few ? 32 : 192;
  if (depth <= most) return depth;
  const int64_t least = ceil_div(segment, most);
  for (int64_t parts = least; parts <= 2 * least; ++parts) {
    if (segment % parts == 0) return segment / parts;
  }
  return segment;
}

// The stem of the models has three channels and stride 2. Its pixels lie a known distance apart, so a tile needs one
// address instead of a dozen, which would not fit the registers.
constexpr int64_t kStemChannels = 3, kStemStride = 2, kStemStep = kStemChannels * kStemStride;
constexpr int kStemVectors = kBlock / kLanes < kMaxVectors ? kBlock / kLanes : kMaxVectors;
constexpr int kStemColumns = kStemVectors == 1 ? 12 : 6;

// kStemColumns pixels of an output row, all outputs of a single panel in turn.
template <class T>
__attribute__((noinline)) void stem_tile(const float* line, const Segment* segments, int64_t count, int64_t length,
                                         const float* weight, const PixelOutput<T>& out, int64_t pixel,
                                         int64_t channel) {
  constexpr int kSums = kStemColumns * kStemVectors;
  Float sum[kSums];
  MVF_UNROLL
  for (int i = 0; i < kSums; ++i) sum[i] = Float{};
  for (int64_t s = 0; s < count; ++s) {
    const float* x = line + segments[s].a;
    const float* column = weight + segments[s].b * out.channels + channel;
    for (int64_t k = 0; k < length; ++k, ++x, column += out.channels) {
      MVF_UNROLL
      for (int v = 0; v < kStemVectors; ++v) {
        const Float w = load_unaligned<Float>(column + v * kLanes);
        MVF_UNROLL
        for (int m = 0; m < kStemColumns; ++m) sum[m * kStemVectors + v] += splat(x[m * kStemStep]) * w;
      }
    }
  }
  MVF_UNROLL
  for (int v = 0; v < kStemVectors; ++v) {
    const Float scale = load_unaligned<Float>(out.scale + channel + v * kLanes);
    const Float bias = load_unaligned<Float>(out.bias + channel + v * kLanes);
    MVF_UNROLL
    for (int m = 0; m < kStemColumns; ++m) sum[m * kStemVectors + v] = sum[m * kStemVectors + v] * scale + bias;
  }
  activate<kSums>(out.activation, sum);
  T* y = out.out[pixel] + channel;
  MVF_UNROLL
  for (int m = 0; m < kStemColumns; ++m, y += out.channels) {
    MVF_UNROLL
    for (int v = 0; v < kStemVectors; ++v) store_vector(y + v * kLanes, sum[m * kStemVectors + v]);
  }
}

// Memory of one task. Also counts it, without memory.
template <class T>
struct Group {
  const Conv2dBiasActParams& p;
  const Window& window;
  LineSource<T, Factor> source;
  int64_t channels, width;  // of a line
  int64_t pixel_step;       // columns of a line between the first taps of neighbouring outputs
  Taps columns;
  bool dense;   // a line has all columns between its first and last, or the taps of each output side by side
  bool direct;  // pixels of x can be read where they are
  bool stem;    // stem_tile does
  Factor* lines;
  const Word** in;  // one address per output pixel: of the first product,
  T** out;          // and of y
  Segment* segments;
  int64_t segment_count = 0, segment_length = 0, pixels = 0, bytes;

  Group(const Conv2dBiasActParams& params, void* block)
      : p(params), window(params.window), source{p.x, p.x2}, channels(source.channels()) {
    const int64_t reach = (p.out_w - 1) * window.stride_w;
    columns = taps_inside(window.kernel_w, window.dilation_w, -window.padding_w, reach, p.x.width);
    const int64_t taps = larger(1, columns.count());
    dense = columns_are_dense(window, p.out_w, taps);
    width = line_columns(window, p.out_w, taps), pixel_step = dense ? window.stride_w : taps;
    direct = sizeof(T) == sizeof(Factor) && p.x.channel_stride == 1 && p.x2.channels == 0 && window.kernel_h == 1 &&
             window.kernel_w == 1 && window.padding_h == 0 && window.padding_w == 0;
    stem = !kPairs && !direct && dense && channels == kStemChannels && window.stride_w == kStemStride &&
           p.out_w >= kStemColumns && p.outputs % kBlock == 0 && panel_count(p.outputs) == 1;
    const int64_t rows = ceil_div(p.out_h, p.groups);
    Arena arena(block);
    lines = arena.take<Factor>(direct ? 0 : line_count(window, rows, window.kernel_h), width, channels);
    in = arena.take<const Word*>(rows, p.out_w);
    out = arena.take<T*>(rows, p.out_w);
    segments = arena.take<Segment>(window.kernel_h, window.kernel_w);
    bytes = arena.bytes();
  }

  void read_lines(int64_t image, int64_t row, int64_t count) {
    const int64_t first = row * window.stride_h - window.padding_h;
    const int64_t left = columns.begin * window.dilation_w - window.padding_w;
    const Taps rows = taps_inside(window.kernel_h, window.dilation_h, first, (count - 1) * window.stride_h, p.x.height);
    const bool all_rows = lines_are_dense(window, count, rows.count());
    const int64_t origin = first + rows.begin * window.dilation_h;
    const int64_t found = rows.count() == 0 ? 0 : line_count(window, count, rows.count());
    for (int64_t line = 0; line < found; ++line) {
      const int64_t offset = all_rows ? line : line % count * window.stride_h + line / count * window.dilation_h;
      read_line(image, origin + offset, left, lines + line * width * channels);
    }
    const int64_t row_step = all_rows ? window.stride_h : 1, tap_step = all_rows ? window.dilation_h : count;
    for (int64_t r = 0; r < count; ++r) {
      const Factor* pixel = lines + r * row_step * width * channels;
      for (int64_t i = 0; i < p.out_w; ++i) in[r * p.out_w + i] = (const Word*)(pixel + i * pixel_step * channels);
    }
    const int64_t depth = channels / kWordFactors;
    const int64_t run = !dense || window.dilation_w == 1 ? larger(1, columns.count()) : 1;  // taps side by side
    segment_count = 0, segment_length = run * depth;
    for (int64_t kh = rows.begin; kh < rows.end; ++kh) {
      for (int64_t kw = columns.begin; kw < columns.end; kw += run) {
        const int64_t line = (kh - rows.begin) * tap_step, column = (kw - columns.begin) * window.dilation_w;
        segments[segment_count++] = {(line * width + column) * depth, (kh * window.kernel_w + kw) * depth};
      }
    }
  }

  void read_line(int64_t image, int64_t row, int64_t left, Factor* line) const {
    if (dense) return source.copy(image, row, left, width, line);
    for (int64_t tap = 0; tap < columns.count(); ++tap) {
      source.copy_columns(image, row, left + tap * window.dilation_w, window.stride_w, p.out_w, line + tap * channels,
                          pixel_step * channels);
    }
  }

  void point_at_input(int64_t image, int64_t row, int64_t count) {
    const Factor* x = (const Factor*)p.x.data + image * p.x.image_stride;
    for (int64_t r = 0; r < count; ++r) {
      const Factor* pixel = x + (row + r) * window.stride_h * p.x.row_stride;
      for (int64_t i = 0; i < p.out_w; ++i) {
        in[r * p.out_w + i] = (const Word*)(pixel + i * window.stride_w * p.x.pixel_stride);
      }
    }
    segments[0] = {0, 0}, segment_count = 1, segment_length = channels / kWordFactors;
  }

  // Group `index` of the groups of all images.
  void prepare(int64_t index) {
    const int64_t image = index / p.groups, group = index % p.groups;
    const int64_t row = part_begin(p.out_h, p.groups, group), count = part_begin(p.out_h, p.groups, group + 1) - row;
    pixels = count * p.out_w;
    if (direct) {
      point_at_input(image, row, count);
    } else {
      read_lines(image, row, count);
    }
    T* y = (T*)p.y + (image * p.out_h + row) * p.out_w * p.outputs;
    for (int64_t i = 0; i < pixels; ++i) out[i] = y + i * p.outputs;
  }

  void multiply(int64_t slice) const {
    const int64_t depth = window.kernel_h * window.kernel_w * channels / kWordFactors, panels = panel_count(p.outputs);
    const Panels packed(p.packed, depth, p.outputs);
    const PixelOutput<T> output{out, nullptr, packed.scale, packed.bias, p.outputs, p.activation};
    if constexpr (!kPairs) {
      if (stem) return multiply_stem(output);
    }
    const PixelInput input{in, segments, segment_count, segment_length, sum_length(p, depth, segment_length)};
    multiply_pixels<T>(input, pixels, depth, p.packed, output, part_begin(panels, p.slices, slice),
                       part_begin(panels, p.slices, slice + 1));
  }

  void multiply_stem(const PixelOutput<T>& output) const {
    for (int64_t row = 0; row < pixels; row += p.out_w) {
      for (int64_t start = 0; start < p.out_w; start += kStemColumns) {
        const int64_t pixel = row + smaller(start, p.out_w - kStemColumns);  // the last tile overlaps
        for (int64_t channel = 0; channel < p.outputs; channel += kStemVectors * kLanes) {
          stem_tile<T>(in[pixel], segments, segment_count, segment_length, p.packed, output, pixel, channel);
        }
      }
    }
  }
};

}  // namespace

void conv2d_bias_act(const Conv2dBiasActParams& p, int64_t begin, int64_t end) {
  [[maybe_unused]] const TileScope tiles;
  run_groups<Group>(p, begin, end);
}

}  // namespace mobilevit_fast::cpu::MVF_ISA
