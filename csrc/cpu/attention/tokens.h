// Tokens in the lanes of vectors: a block is (channels, kBlockTokens), so that weights are broadcast and sums over
// channels, keys or hidden units need no movement across lanes. Compiled once per instruction set.
#pragma once

#include "cpu/gemm/gemm.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

constexpr int kBlockVectors = 2;
constexpr int64_t kBlockTokens = kBlockVectors * kLanes;
constexpr int64_t kBlockBytes = kBlockTokens * sizeof(Word);  // of a row

// Rows of accumulators that a tile in registers has at most.
#if defined(__AVX512F__)
constexpr int kTokenRows = 12;
#else
constexpr int kTokenRows = 6;
#endif

// Rows of words that a block of operands has for `depth` of them.
MVF_INLINE int64_t row_depth(int64_t depth) { return round_up(depth, kRowGroups.depth); }

// Blocks of tokens, `stride` apart, as elements or as words of factors: pairs are of two channels of one token.
template <class W>
struct BlocksOf {
  W* data;
  int64_t stride, count;

  W* operator[](int64_t block) const { return data + block * stride; }
  BlocksOf from(int64_t block, int64_t blocks) const { return {data + block * stride, stride, blocks}; }
};

using Blocks = BlocksOf<float>;
using Operands = BlocksOf<Word>;

// A linear layer in row groups, as gemm_layout.h says.
struct Linear {
  const float* weight;
  int64_t depth, outputs;

  const float* scale() const { return weight + row_depth(depth) * round_up(outputs, kRowGroups.rows); }
  const float* bias() const { return scale() + round_up(outputs, kRowGroups.rows); }
  const float* end() const { return weight + row_group_floats(depth, outputs, kRowGroups); }
};

// Finishes and stores one row of one block, from accumulators in memory: see finish_pixel. A row of words is one output
// or two.
template <bool kAdd, bool kAffine, class W>
MVF_INLINE void finish_row(const float* sums, const float* scale, const float* bias, Activation activation, W* out) {
  constexpr int kRows = kFactorsOf<W>;
  Float v[kRows * kBlockVectors];
  MVF_UNROLL
  for (int i = 0; i < kRows * kBlockVectors; ++i) {
    v[i] = load_unaligned<Float>(sums + i * kLanes);
    if (kAffine) v[i] = v[i] * scale[i / kBlockVectors] + bias[i / kBlockVectors];
  }
  if (kAffine) activate<kRows * kBlockVectors>(activation, v);
  MVF_UNROLL
  for (int i = 0; i < kBlockVectors; ++i) {
    Float rows[kRows];
    MVF_UNROLL
    for (int row = 0; row < kRows; ++row) rows[row] = v[row * kBlockVectors + i];
    if constexpr (kAdd) rows[0] += load_unaligned<Float>(out + i * kLanes);
    store_words(out + i * kLanes, rows);
  }
}

#if defined(MVF_TILES)

// kRowTiles times 16 outputs of one block, of which the first `valid` are stored: see token_tile below. `group` floats
// lie between two groups of weights.
template <int kRowTiles, bool kAdd, bool kAffine, class W>
__attribute__((noinline)) void token_tiles(const float* a, int64_t group, const Word* b, int64_t depth,
                                           const float* scale, const float* bias, Activation activation, W* out,
                                           int64_t valid) {
  static_assert(kBlockVectors == 2 && kLanes == kTileSide);
  constexpr int64_t kTile = kTileSide * kTileSide;
  alignas(64) float sums[kRowTiles * kTileSide * kBlockTokens];
  zero_sums<kRowTiles, 2>();
  for (int64_t k = 0; k < depth; k += kTileSide, a += kTile, b += kTileSide * kBlockTokens) {
    load_tile<kTilesB>(b, kBlockBytes);
    load_tile<kTilesB + 1>(b + kTileSide, kBlockBytes);
    load_tile<kTilesA>(a, kTileBytes);
    if constexpr (kRowTiles > 1) load_tile<kTilesA + 1>(a + group, kTileBytes);
    multiply_tiles<kRowTiles, 2>();
  }
  store_sums<kRowTiles, 2>(sums);
  const float* row = opaque(sums);
  for (int64_t m = 0; m < valid; m += kFactorsOf<W>, out += kBlockTokens) {
    finish_row<kAdd, kAffine>(row + m * kBlockTokens, scale + m, bias + m, activation, out);
  }
}

// out = [out +] activation(scale · linear(in) + bias) for all blocks. Weights pass through the cache once. The rows of
// `in` behind its depth become zero.
template <bool kAdd, bool kAffine = true, class W>
void multiply_tokens(const Linear& linear, const Operands& in, const BlocksOf<W>& out, Activation activation) {
  const float *scale = linear.scale(), *bias = linear.bias();
  const int64_t padding = row_depth(linear.depth) - linear.depth, group = row_depth(linear.depth) * kTileSide;
  for (int64_t block = 0; block < in.count; ++block) {
    std::memset(in[block] + linear.depth * kBlockTokens, 0, padding * kBlockTokens * sizeof(Word));
  }
  for (int64_t row = 0; row < linear.outputs; row += 2 * kTileSide) {
    const int64_t valid = smaller(2 * kTileSide, linear.outputs - row);
    const auto tiles = valid > kTileSide ? token_tiles<2, kAdd, kAffine, W> : token_tiles<1, kAdd, kAffine, W>;
    for (int64_t block = 0; block < in.count; ++block) {
      tiles(linear.weight + row / kTileSide * group, group, in[block], linear.depth, scale + row, bias + row,
            activation, out[block] + row / kFactorsOf<W> * kBlockTokens, valid);
    }
  }
}

#else

// kRows outputs of one block: activation(scale · sum + bias), added to what is there with kAdd; the sum alone without
// kAffine. Only the first `valid` are stored.
template <int kRows, bool kAdd, bool kAffine, class W>
__attribute__((noinline)) void token_tile(const float* a, const Word* b, int64_t depth, const float* scale,
                                          const float* bias, Activation activation, W* out, int64_t valid) {
  float sums[kRows * kBlockTokens];
  {
    Float sum[kRows * kBlockVectors] = {};
    multiply_columns<kRows, kBlockVectors, true>((const Word*)a, kRowGroups.rows, b, kBlockTokens, depth, sum);
    MVF_UNROLL
    for (int i = 0; i < kRows * kBlockVectors; ++i) store_vector(sums + i * kLanes, sum[i]);
  }
  const float* row = opaque(sums);
  for (int m = 0; m < smaller(kRows, valid); m += kFactorsOf<W>, out += kBlockTokens) {
    finish_row<kAdd, kAffine>(row + m * kBlockTokens, scale + m, bias + m, activation, out);
  }
}

template <class W>
using TokenTile = void (*)(const float*, const Word*, int64_t, const float*, const float*, Activation, W*, int64_t);

// The tile of at least `rows` rows: even numbers only, a row too many is computed and not stored.
template <int kRows, bool kAdd, bool kAffine, class W>
TokenTile<W> choose_token_tile(int64_t rows) {
  if constexpr (kRows > 2) {
    if (rows <= kRows - 2) return choose_token_tile<kRows - 2, kAdd, kAffine, W>(rows);
  }
  return token_tile<kRows, kAdd, kAffine, W>;
}

// out = [out +] activation(scale · linear(in) + bias) for all blocks. Weights pass through the cache once.
template <bool kAdd, bool kAffine = true, class W>
void multiply_tokens(const Linear& linear, const Operands& in, const BlocksOf<W>& out, Activation activation) {
  const float *scale = linear.scale(), *bias = linear.bias();
  for (int64_t row = 0; row < linear.outputs; row += kTokenRows) {
    const int64_t rest = linear.outputs - row;
    const int64_t group = row / kRowGroups.rows * kRowGroups.rows;
    const float* a = linear.weight + group * linear.depth + row - group;
    const TokenTile<W> tile = choose_token_tile<kTokenRows, kAdd, kAffine, W>(rest);
    for (int64_t block = 0; block < in.count; ++block) {
      tile(a, in[block], linear.depth, scale + row, bias + row, activation,
           out[block] + row / kFactorsOf<W> * kBlockTokens, rest);
    }
  }
}

#endif

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
MVF_INLINE void layer_norm(const float* in, Word* out, const float* parameters, int64_t channels, float eps) {
  const float share = 1.0f / (float)channels;
  for (int v = 0; v < kBlockVectors; ++v, in += kLanes, out += kLanes) {
    const Float mean = sum_channels(in, channels, [](Float x) __attribute__((always_inline)) { return x; }) * share;
    const Float variance =
        sum_channels(in, channels, [&](Float x) __attribute__((always_inline)) { return (x - mean) * (x - mean); }) *
        share;
    const Float scale = 1.0f / square_root(variance + eps);
    for (int64_t c = 0; c < channels; c += kWordFactors) {
      Float rows[kWordFactors];
      MVF_UNROLL
      for (int i = 0; i < kWordFactors; ++i) {
        const Float x = (load_unaligned<Float>(in + (c + i) * kBlockTokens) - mean) * scale;
        rows[i] = x * parameters[c + i] + parameters[channels + c + i];
      }
      store_words(out + c / kWordFactors * kBlockTokens, rows);
    }
  }
}

// Rows of one block as words.
MVF_INLINE void join_rows(const float* in, Word* out, int64_t channels) {
  for (int64_t c = 0; c < channels; c += kWordFactors, out += kBlockTokens) {
    for (int v = 0; v < kBlockVectors; ++v) {
      Float rows[kWordFactors];
      MVF_UNROLL
      for (int i = 0; i < kWordFactors; ++i) {
        rows[i] = load_unaligned<Float>(in + (c + i) * kBlockTokens + v * kLanes);
      }
      store_words(out + v * kLanes, rows);
    }
  }
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
