// How the pixels of an image batch are sequences of tokens in blocks. Compiled once per instruction set.
#pragma once

#include "cpu/attention/tokens.h"
#include "mobilevit_transformer.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// Where a token's pixel is: image, row and column on the (possibly resized) grid of patches.
struct Place {
  int64_t image, row, column;
};

struct Shape {
  int64_t patch_h, patch_w, grid_w;
  int64_t tokens;        // of a sequence
  int64_t sequences;     // of the call
  int64_t per_block;     // sequences in one block
  int64_t per_sequence;  // blocks of one sequence
  int64_t blocks;

  explicit Shape(const MobileViTTransformerParams& p) {
    patch_h = p.patch_h, patch_w = p.patch_w, grid_w = p.grid_w;
    tokens = p.grid_h * p.grid_w;
    sequences = p.x.batch * p.patch_h * p.patch_w;
    per_block = tokens <= kLanes ? kBlockTokens / tokens : 1;
    per_sequence = ceil_div(tokens, kBlockTokens);
    blocks = ceil_div(sequences, per_block) * per_sequence;
  }

  // The pixel of column `column` of a block. Columns beyond the last token repeat it, so that they hold usual values.
  Place place(int64_t block, int64_t column) const {
    int64_t sequence, token;
    if (per_block > 1) {
      const int64_t first = block * per_block;
      sequence = first + smaller(column / tokens, smaller(per_block, sequences - first) - 1);
      token = smaller(column - (sequence - first) * tokens, tokens - 1);
    } else {
      sequence = block / per_sequence;
      token = smaller(block % per_sequence * kBlockTokens + column, tokens - 1);
    }
    const int64_t positions = patch_h * patch_w, position = sequence % positions;
    return {sequence / positions, token / grid_w * patch_h + position / patch_w,
            token % grid_w * patch_w + position % patch_w};
  }

  // Columns of a block that hold tokens.
  int64_t filled(int64_t block) const {
    if (per_block > 1) {
      return smaller(per_block, sequences - block * per_block) * tokens;
    }
    return smaller(kBlockTokens, tokens - block % per_sequence * kBlockTokens);
  }
};

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
