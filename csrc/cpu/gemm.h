// Matrix products in registers, on weights packed as gemm_layout.h says. Compiled once per instruction set.
#pragma once

#include "factors.h"
#include "mobilevit_fast/activation.h"
#include "mobilevit_fast/gemm_layout.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// Vectors of outputs and rows of inputs that a tile holds in registers. 32 registers take 24 sums, 16 take 12; more
// than eight rows would not leave enough registers for their addresses.
#if defined(__AVX512F__)
constexpr int kMaxVectors = 4;
constexpr int tile_height(int vectors) { return vectors == 4 ? 6 : 8; }
#else
constexpr int kMaxVectors = 2;
constexpr int tile_height(int) { return 6; }
#endif

// Depths, lengths and addresses of factors count words: see factors.h.
//
// A run of products: `a` words into every row, `b` rows into the packed weights.
struct Segment {
  int64_t a, b;
};

// Words after which a sum is put aside and started anew: rounding grows with the length of a sum.
constexpr int64_t kSumLength = 128 / kWordFactors;

// Weights that come next, `step` words of which the second-level cache reads with each product: the first tile of a
// panel goes through it faster than memory can follow. Many reads at once would hold up those of the tile.
struct Ahead {
  const float* next;
  int64_t step;
};

// sum[m][v] += row m · column v over `length` words.
template <int kRows, int kVectors>
MVF_INLINE void multiply_run(const Word* const* rows, int64_t first, int64_t length, const float* column, int64_t ldb,
                             Ahead& ahead, Float (&sum)[kRows * kVectors]) {
  const Word* a[kRows];
  MVF_UNROLL
  for (int m = 0; m < kRows; ++m) a[m] = rows[m] + first;
  for (int64_t k = 0; k < length; ++k, column += ldb, ahead.next += ahead.step) {
    __builtin_prefetch(ahead.next, 0, 2);
    __builtin_prefetch(ahead.next + kBlock, 0, 2);
    Lanes<Word> w[kVectors];
    MVF_UNROLL
    for (int v = 0; v < kVectors; ++v) w[v] = load_unaligned<Lanes<Word>>(column + v * kLanes);
    MVF_UNROLL
    for (int m = 0; m < kRows; ++m) {
      const Lanes<Word> x = splat_word(a[m] + k);
      MVF_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[m * kVectors + v] = multiply_add(sum[m * kVectors + v], x, w[v]);
    }
  }
}

// total[m][v] = row m · column v over all segments of `length` words each, in sums of about `sum_length` words.
template <int kRows, int kVectors>
MVF_INLINE void multiply_rows(const Word* const* rows, const Segment* segments, int64_t count, int64_t length,
                              int64_t sum_length, const float* b, int64_t ldb, Ahead ahead, float* total) {
  constexpr int kCount = kRows * kVectors;
  Float sum[kCount] = {};
  bool first = true;
  int64_t words = 0;
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t begin = 0; begin < length;) {
      if (words >= sum_length) {
        MVF_UNROLL
        for (int i = 0; i < kCount; ++i) {
          if (!first) sum[i] += load_unaligned<Float>(total + i * kLanes);
          store_vector(total + i * kLanes, sum[i]);
          sum[i] = Float{};
        }
        first = false, words = 0;
      }
      const int64_t run = smaller(length - begin, sum_length - words);
      multiply_run<kRows, kVectors>(rows, segments[s].a + begin, run, b + (segments[s].b + begin) * ldb, ldb, ahead,
                                    sum);
      begin += run, words += run;
    }
  }
  if (first) {
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i) store_vector(total + i * kLanes, sum[i]);
  } else {
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i)
      store_vector(total + i * kLanes, sum[i] + load_unaligned<Float>(total + i * kLanes));
  }
}

// sum[m][v] += sum over k of a[k][m] · b[k][v]. kPrefetch: has the cache read on behind these rows of a, where weights
// lie that come next.
template <int kRows, int kVectors, bool kPrefetch = false, class W>
MVF_INLINE void multiply_columns(const W* a, int64_t lda, const W* b, int64_t ldb, int64_t depth,
                                 Float (&sum)[kRows * kVectors]) {
  const int64_t next = depth * lda;
  for (int64_t k = 0; k < depth; ++k, a += lda, b += ldb) {
    if (kPrefetch) __builtin_prefetch(a + next, 0, 2);
    Lanes<W> w[kVectors];
    MVF_UNROLL
    for (int v = 0; v < kVectors; ++v) w[v] = load_unaligned<Lanes<W>>(b + v * kLanes);
    MVF_UNROLL
    for (int m = 0; m < kRows; ++m) {
      const Lanes<W> x = splat_word(a + m);
      MVF_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[m * kVectors + v] = multiply_add(sum[m * kVectors + v], x, w[v]);
    }
  }
}

template <int kCount>
MVF_INLINE void activate(Activation activation, Float* v) {
  if (activation == Activation::silu) {
    silu_all<true, kCount>(v);
  } else if (activation == Activation::relu) {
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i) v[i] = relu(v[i]);
  }
}

// The first `count` numbers of a vector, of or as elements of type T.
template <class T>
MVF_INLINE void store_first(T* target, Float v, int64_t count) {
  T buffer[kLanes];
  store_vector(buffer, v);
  for (int64_t i = 0; i < count; ++i) target[i] = buffer[i];
}
template <class T>
MVF_INLINE Float load_first(const T* source, int64_t count) {
  T buffer[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) buffer[i] = source[i];
  return load_as_float(buffer);
}

// Where the pixels of a product go: activation(scale · sum + bias) + residual. `out` and `residual` hold one address
// per pixel; residual may be null. Beyond `channels`, which lie in the padding, nothing is written. Without scales the
// sums are stored as they are, those of the padding too.
template <class T>
struct PixelOutput {
  T* const* out;
  const Factor* const* residual;
  const float *scale, *bias;
  int64_t channels;
  Activation activation;
};

// The inputs: one address per pixel, and the segments of factors that start there.
struct PixelInput {
  const Word* const* rows;
  const Segment* segments;
  int64_t count, length;
  int64_t sum_length = kSumLength;
};

// Finishes and stores one row of a tile. Rows go through memory and a loop: unrolled over the whole tile, the epilogue
// would need several times the registers there are.
template <class T, int kVectors>
MVF_INLINE void finish_pixel(const float* sums, const Float* scale, const Float* bias, const PixelOutput<T>& out,
                             int64_t pixel, int64_t channel) {
  Float v[kVectors];
  MVF_UNROLL
  for (int i = 0; i < kVectors; ++i) v[i] = load_unaligned<Float>(sums + i * kLanes) * scale[i] + bias[i];
  activate<kVectors>(out.activation, v);
  T* target = out.out[pixel] + channel;
  const Factor* residual = out.residual == nullptr ? nullptr : out.residual[pixel] + channel;
  const int64_t valid = out.channels - channel;
  if (valid >= kVectors * kLanes) {
    MVF_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      if (residual != nullptr) v[i] += load_as_float(residual + i * kLanes);
      store_vector(target + i * kLanes, v[i]);
    }
    return;
  }
  for (int i = 0; i < kVectors && i * kLanes < valid; ++i) {
    const int64_t count = smaller(kLanes, valid - i * kLanes);
    if (residual != nullptr) v[i] += load_first(residual + i * kLanes, count);
    store_first(target + i * kLanes, v[i], count);
  }
}

template <class T, int kRows, int kVectors>
__attribute__((noinline)) void pixel_tile(const PixelInput& in, const float* b, int64_t ldb, const Ahead& ahead,
                                          const PixelOutput<T>& out, int64_t pixel, int64_t channel) {
  float sums[kRows * kVectors * kLanes];
  multiply_rows<kRows, kVectors>(in.rows + pixel, in.segments, in.count, in.length, in.sum_length, b, ldb, ahead, sums);
  if (out.scale == nullptr) {
    const float* sum = opaque(sums);
    for (int m = 0; m < kRows; ++m, sum += kVectors * kLanes) {
      T* target = out.out[pixel + m] + channel;
      MVF_UNROLL
      for (int v = 0; v < kVectors; ++v) store_vector(target + v * kLanes, load_unaligned<Float>(sum + v * kLanes));
    }
    return;
  }
  Float scale[kVectors], bias[kVectors];
  MVF_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    scale[v] = load_unaligned<Float>(out.scale + channel + v * kLanes);
    bias[v] = load_unaligned<Float>(out.bias + channel + v * kLanes);
  }
  const PixelOutput<T> output = out;
  const float* row = opaque(sums);
  for (int m = 0; m < kRows; ++m, row += kVectors * kLanes) {
    finish_pixel<T, kVectors>(row, scale, bias, output, pixel + m, channel);
  }
}

template <class T>
using PixelTile = void (*)(const PixelInput&, const float*, int64_t, const Ahead&, const PixelOutput<T>&, int64_t,
                           int64_t);

// The tile of `rows` rows, at most kRows.
template <class T, int kRows, int kVectors>
PixelTile<T> choose_pixel_tile(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return choose_pixel_tile<T, kRows - 1, kVectors>(rows);
  }
  return pixel_tile<T, kRows, kVectors>;
}

// All pixels times the columns `b` of a panel; `next` are the weights that follow it, `floats` of them worth reading.
template <class T, int kVectors>
void multiply_strip(const PixelInput& in, int64_t pixels, const float* b, int64_t ldb, const float* next,
                    int64_t floats, const PixelOutput<T>& out, int64_t channel) {
  constexpr int kHeight = tile_height(kVectors);
  const int64_t depth = in.count * in.length;  // 0 where nothing but padding is seen
  Ahead ahead{next, ceil_div(floats, larger(1, ceil_div(pixels, kHeight) * depth))};
  int64_t pixel = 0;
  for (; pixel + kHeight <= pixels; pixel += kHeight, ahead.next += depth * ahead.step) {
    pixel_tile<T, kHeight, kVectors>(in, b, ldb, ahead, out, pixel, channel);
  }
  if (pixel < pixels) choose_pixel_tile<T, kHeight, kVectors>(pixels - pixel)(in, b, ldb, ahead, out, pixel, channel);
}

// All pixels times the panel `b` of weights, whose `width` outputs begin with `first`.
template <class T>
void multiply_panel(const PixelInput& in, int64_t pixels, const float* b, int64_t width, const float* next,
                    int64_t floats, const PixelOutput<T>& out, int64_t first) {
  for (int64_t column = 0; column < width && first + column < out.channels;) {
    const int64_t vectors = smaller(kMaxVectors, (width - column) / kLanes);
    switch (vectors) {
      case 1:
        multiply_strip<T, 1>(in, pixels, b + column, width, next, floats, out, first + column);
        break;
      case 2:
        multiply_strip<T, 2>(in, pixels, b + column, width, next, floats, out, first + column);
        break;
#if defined(__AVX512F__)
      case 3:
        multiply_strip<T, 3>(in, pixels, b + column, width, next, floats, out, first + column);
        break;
      default:
        multiply_strip<T, 4>(in, pixels, b + column, width, next, floats, out, first + column);
#endif
    }
    column += vectors * kLanes;
  }
}

// A matrix of `depth` words per output in panels, with its scales and biases: see gemm_layout.h.
struct Panels {
  const float *weight, *scale, *bias, *end;

  Panels(const float* packed, int64_t depth, int64_t outputs) : weight(packed) {
    scale = packed + depth * round_up(outputs, kBlock);
    bias = scale + round_up(outputs, kBlock);
    end = packed + panel_floats(depth, outputs);
  }
};

// All pixels times panels [begin, end) of weights of `depth` words per output, packed for out.channels outputs.
template <class T>
void multiply_pixels(const PixelInput& in, int64_t pixels, int64_t depth, const float* packed,
                     const PixelOutput<T>& out, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel_begin(out.channels, panel), width = panel_begin(out.channels, panel + 1) - first;
    const float* b = packed + first * depth;
    const int64_t following = panel + 1 < end ? panel_begin(out.channels, panel + 2) - (first + width) : 0;
    multiply_panel<T>(in, pixels, b, width, b + width * depth, following * depth, out, first);
  }
}

// The same over all panels; scale and bias of `out` are those packed behind the weights.
template <class T>
void multiply_pixels(const PixelInput& in, int64_t pixels, int64_t depth, const float* packed, PixelOutput<T> out) {
  const Panels panels(packed, depth, out.channels);
  out.scale = panels.scale, out.bias = panels.bias;
  multiply_pixels<T>(in, pixels, depth, packed, out, 0, panel_count(out.channels));
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
