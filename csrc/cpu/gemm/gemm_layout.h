// How the CPU kernels keep weights: made once by pack_* (csrc/cpu/packing.h), in 32-bit words. A word is one float32
// element, for every instruction set, or two bfloat16 that follow one another in the sum, for one that multiplies pairs
// (word_factors of cpu_isa.h); the depth K of a product counts words. Scales and biases are float32.
//
// Panels, where the outputs of a matrix product are channels of a pixel and lie in the lanes of vectors: the N outputs
// are padded to blocks of 16 and cut into panels of one to four blocks, as even as possible. A panel of w outputs is
// (K, w), row after row; panels follow one another; then the N padded scales, then the N padded biases.
//
// Row groups, where the lanes are tokens and an output is a row: groups of 12 outputs, each (K, 12); then scales and
// biases, padded to whole groups. For a variant that multiplies in tiles, groups of 16 outputs, each (K / 16, 16, 16)
// with K padded: 16 outputs by 16 words are a tile.
//
// Padding is zero, so a padded output is activation(0).
#pragma once

#include "common/counts.h"

namespace mobilevit_fast::cpu {

constexpr int64_t kBlock = 16;
constexpr int64_t kPanelBlocks = 4;
constexpr int64_t kTileSide = 16;

struct RowGroups {
  int64_t rows;   // outputs of a group
  int64_t depth;  // words that its depth is a multiple of
};
constexpr RowGroups kVectorRows{12, 1}, kTileRows{kTileSide, kTileSide};

static inline int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b > 0 ? 1 : 0); }
static inline int64_t round_up(int64_t a, int64_t b) { return product_of(ceil_div(a, b), b); }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Where part i of `parts` nearly equal parts of `count` things begins.
static inline int64_t part_begin(int64_t count, int64_t parts, int64_t i) { return i * count / parts; }

static inline int64_t panel_count(int64_t outputs) { return ceil_div(ceil_div(outputs, kBlock), kPanelBlocks); }

// First output of panel i; of the last panel's successor, the number of padded outputs.
static inline int64_t panel_begin(int64_t outputs, int64_t i) {
  const int64_t blocks = ceil_div(outputs, kBlock), panels = panel_count(outputs);
  const int64_t wider = blocks % panels;
  return (i * (blocks / panels) + smaller(i, wider)) * kBlock;
}

// Size of packed weights, scales and biases in words, for `depth` words per output.
static inline int64_t panel_floats(int64_t depth, int64_t outputs) {
  return product_of(sum_of(depth, 2), round_up(outputs, kBlock));
}
static inline int64_t row_group_floats(int64_t depth, int64_t outputs, RowGroups groups) {
  return product_of(sum_of(round_up(depth, groups.depth), 2), round_up(outputs, groups.rows));
}

}  // namespace mobilevit_fast::cpu
