// How the pixels of an image batch are sequences of tokens in blocks. Compiled once per instruction set.
#pragma once

#include "mobilevit_fast/mobilevit_transformer.h"
#include "tokens.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

struct Shape {
  int64_t tokens;        // of a sequence
  int64_t sequences;     // of the call
  int64_t per_block;     // sequences in one block
  int64_t per_sequence;  // blocks of one sequence
  int64_t blocks;

  explicit Shape(const MobileViTTransformerParams& p) {
    tokens = p.grid_h * p.grid_w;
    sequences = p.x.batch * p.patch_h * p.patch_w;
    per_block = tokens <= kLanes ? kBlockTokens / tokens : 1;
    per_sequence = ceil_div(tokens, kBlockTokens);
    blocks = ceil_div(sequences, per_block) * per_sequence;
  }
};

// Where a token's pixel is: image, row and column on the (possibly resized) grid of patches.
struct Place {
  int64_t image, row, column;
};

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
