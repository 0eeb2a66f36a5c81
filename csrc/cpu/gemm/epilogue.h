// Where the inputs of matrix products over pixels come from and what is done with their accumulators. Compiled once per
// instruction set.
#pragma once

#include "common/activation.h"
#include "factors.h"
#include "gemm_layout.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// Depths, lengths and addresses of factors count words: see factors.h.
//
// A run of products: `a` words into every row, `b` rows into the packed weights.
struct Segment {
  int64_t a, b;
};

// Words after which an accumulator is put aside and started anew: rounding grows with the length of a sum.
constexpr int64_t kSumLength = 128 / kWordFactors;

template <int kCount>
MVF_INLINE void activate(Activation activation, Float* v) {
  if (activation == Activation::silu) {
    silu_all<!kPairs, kCount>(v);
  } else if (activation == Activation::relu) {
    MVF_UNROLL
    for (int i = 0; i < kCount; ++i) v[i] = relu(v[i]);
  }
}

// The first `count` elements of a vector, of or as elements of type T.
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
// accumulators are stored as they are, those of the padding too.
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
  int64_t sum_length = kSumLength;  // in vectors
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

// Finishes and stores `rows` rows of accumulators.
template <class T, int kVectors>
MVF_INLINE void finish_tile(const float* sums, int64_t rows, const PixelOutput<T>& output, int64_t pixel,
                            int64_t channel) {
  const PixelOutput<T> out = output;
  const float* row = opaque(sums);
  if (out.scale == nullptr) {
    for (int64_t m = 0; m < rows; ++m, row += kVectors * kLanes) {
      T* target = out.out[pixel + m] + channel;
      MVF_UNROLL
      for (int v = 0; v < kVectors; ++v) store_vector(target + v * kLanes, load_unaligned<Float>(row + v * kLanes));
    }
    return;
  }
  Float scale[kVectors], bias[kVectors];
  MVF_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    scale[v] = load_unaligned<Float>(out.scale + channel + v * kLanes);
    bias[v] = load_unaligned<Float>(out.bias + channel + v * kLanes);
  }
  for (int64_t m = 0; m < rows; ++m, row += kVectors * kLanes) {
    finish_pixel<T, kVectors>(row, scale, bias, out, pixel + m, channel);
  }
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
