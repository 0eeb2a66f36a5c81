// Matrix products in registers, on weights packed as gemm_layout.h says. Compiled once per instruction set.
#pragma once

#include "tiles.h"
#if defined(MVF_TILES)
#include "strip_tiles.h"
#else
#include "strip_vectors.h"
#endif

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

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
#if defined(__AVX512F__) && !defined(MVF_TILES)
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
