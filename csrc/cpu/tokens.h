// Tokens in the lanes of vectors: a block is (channels, kBlockTokens), so that weights are broadcast and sums over
// channels, keys or hidden units need no movement across lanes. Compiled once per instruction set.
#pragma once

#include "gemm.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

constexpr int kBlockVectors = 2;
constexpr int64_t kBlockTokens = kBlockVectors * kLanes;

// Blocks of tokens: `stride` numbers apart.
struct Blocks {
  float* data;
  int64_t stride, count;

  float* operator[](int64_t block) const { return data + block * stride; }
  Blocks from(int64_t block, int64_t blocks) const { return {data + block * stride, stride, blocks}; }
};

// A linear layer in row groups, as gemm_layout.h says.
struct Linear {
  const float* weight;
  int64_t inputs, outputs;

  const float* scale() const { return weight + inputs * round_up(outputs, kRowGroup); }
  const float* bias() const { return scale() + round_up(outputs, kRowGroup); }
  const float* end() const { return weight + row_group_floats(inputs, outputs); }
};

// Finishes and stores one output of one block, from sums in memory: see finish_pixel.
template <bool kAdd, bool kAffine>
MVF_INLINE void finish_row(const float* sums, float scale, float bias, Activation activation, float* out) {
  Float v[kBlockVectors];
  MVF_UNROLL
  for (int i = 0; i < kBlockVectors; ++i) {
    v[i] = load_unaligned<Float>(sums + i * kLanes);
    if (kAffine) v[i] = v[i] * scale + bias;
  }
  if (kAffine) activate<kBlockVectors>(activation, v);
  MVF_UNROLL
  for (int i = 0; i < kBlockVectors; ++i) {
    if (kAdd) v[i] += load_unaligned<Float>(out + i * kLanes);
    store_vector(out + i * kLanes, v[i]);
  }
}

// kRows outputs of one block: activation(scale · sum + bias), added to what is there with kAdd; the sum alone without
// kAffine. Only the first `valid` are stored.
template <int kRows, bool kAdd, bool kAffine>
__attribute__((noinline)) void token_tile(const float* a, const float* b, int64_t depth, const float* scale,
                                          const float* bias, Activation activation, float* out, int64_t valid) {
  float sums[kRows * kBlockTokens];
  {
    Float sum[kRows * kBlockVectors] = {};
    multiply_columns<kRows, kBlockVectors, true>(a, kRowGroup, b, kBlockTokens, depth, sum);
    MVF_UNROLL
    for (int i = 0; i < kRows * kBlockVectors; ++i) store_vector(sums + i * kLanes, sum[i]);
  }
  const float* row = opaque(sums);
  for (int m = 0; m < smaller(kRows, valid); ++m, row += kBlockTokens, out += kBlockTokens) {
    finish_row<kAdd, kAffine>(row, scale[m], bias[m], activation, out);
  }
}

using TokenTile = void (*)(const float*, const float*, int64_t, const float*, const float*, Activation, float*,
                           int64_t);

#if defined(__AVX512F__)
constexpr int kTokenRows = 12;
#else
constexpr int kTokenRows = 6;
#endif

// The tile of at least `rows` rows: even numbers only, a row too many is computed and not stored.
template <int kRows, bool kAdd, bool kAffine>
TokenTile choose_token_tile(int64_t rows) {
  if constexpr (kRows > 2) {
    if (rows <= kRows - 2) return choose_token_tile<kRows - 2, kAdd, kAffine>(rows);
  }
  return token_tile<kRows, kAdd, kAffine>;
}

// out = [out +] activation(scale · linear(in) + bias) for all blocks. Weights pass through the cache once.
template <bool kAdd, bool kAffine = true>
void multiply_tokens(const Linear& linear, const Blocks& in, const Blocks& out, Activation activation) {
  const float *scale = linear.scale(), *bias = linear.bias();
  for (int64_t row = 0; row < linear.outputs; row += kTokenRows) {
    const int64_t rest = linear.outputs - row;
    const float* a = linear.weight + row / kRowGroup * kRowGroup * linear.inputs + row % kRowGroup;
    const TokenTile tile = choose_token_tile<kTokenRows, kAdd, kAffine>(rest);
    for (int64_t block = 0; block < in.count; ++block) {
      tile(a, in[block], linear.inputs, scale + row, bias + row, activation, out[block] + row * kBlockTokens, rest);
    }
  }
}

MVF_INLINE Float square_root(Float x) {
#if defined(__AVX512F__)
  return (Float)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#else
  Float root{};
  for (int i = 0; i < kLanes; ++i) root[i] = __builtin_sqrtf(x[i]);
  return root;
#endif
}

// Sum over channels of f(value) for one vector of tokens, in four interleaved sums: one alone would wait for itself.
template <class Function>
MVF_INLINE Float sum_channels(const float* in, int64_t channels, Function f) {
  constexpr int kSums = 4;
  Float sum[kSums] = {};
  int64_t c = 0;
  for (; c + kSums <= channels; c += kSums) {
    MVF_UNROLL
    for (int i = 0; i < kSums; ++i) sum[i] += f(load_unaligned<Float>(in + (c + i) * kBlockTokens));
  }
  for (; c < channels; ++c) sum[0] += f(load_unaligned<Float>(in + c * kBlockTokens));
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Layer norm over the channels of every token (two passes: mean, then variance about it). weight, then bias.
MVF_INLINE void layer_norm(const float* in, float* out, const float* parameters, int64_t channels, float eps) {
  const float share = 1.0f / (float)channels;
  for (int v = 0; v < kBlockVectors; ++v, in += kLanes, out += kLanes) {
    const Float mean = sum_channels(in, channels, [](Float x) __attribute__((always_inline)) { return x; }) * share;
    const Float variance =
        sum_channels(in, channels, [&](Float x) __attribute__((always_inline)) { return (x - mean) * (x - mean); }) *
        share;
    const Float scale = 1.0f / square_root(variance + eps);
    for (int64_t c = 0; c < channels; ++c) {
      const Float x = (load_unaligned<Float>(in + c * kBlockTokens) - mean) * scale;
      store_vector(out + c * kBlockTokens, x * parameters[c] + parameters[channels + c]);
    }
  }
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
