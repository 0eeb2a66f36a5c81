// The transformer stack of a MobileViT block on the CPU: parameters and entry points.
#pragma once

#include "common/activation.h"
#include "common/image.h"
#include "cpu/cpu_isa.h"
#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {

// y = activation(scale * out(norm(layers(in(x)))) + bias), attention inside the pixels at one position of all patches.
// `packed` is float32: row groups of `in`; for every layer norm1 (weight, bias), row groups of query, key, value, of
// the projection, norm2, row groups of fc1 and fc2; the last norm; row groups of `out`. y is dense channels_last.
struct MobileViTTransformerParams {
  ImageBatch x;
  Element element;
  void* y;  // (batch, height, width, outputs)
  const float *packed, *packed_end;
  int64_t width, hidden, outputs, layers, num_heads;
  int64_t patch_h, patch_w;
  int64_t grid_h, grid_w;  // patches; a sequence has one token of each
  float eps;
  Activation mlp_activation, out_activation;
  // Where the patches do not divide the image: out's sums (batch, grid_h * patch_h, grid_w * patch_w, outputs) before
  // they are resized to the image. Otherwise null.
  float* resized;
  // Tokens are computed in blocks of as many columns as fill two vectors; a bundle of blocks is independent of all
  // others. See Plan.
  int64_t blocks_per_bundle;
  // Memory of all tokens, for a run layer by layer: `plan_floats`.
  float* shared;
};

// How the tokens of a call are cut, for the instruction set whose function returned it.
struct Plan {
  int64_t blocks;           // of all sequences
  int64_t blocks_per_unit;  // that cannot be told apart: those of one sequence, or one that holds several sequences
  int64_t shared_floats;    // of the memory that a run layer by layer needs
};

// One function each per instruction set. A call computes either whole bundles, each through all layers, or step by
// step: step 0 embeds the tokens of blocks [begin, end); step l of 1..layers computes layer l of them, and what the
// next step needs. Steps need all blocks of the step before. Where the image is resized, `resize` of image rows
// follows.
#define MVF_DECLARE(isa)                                                                                          \
  namespace isa {                                                                                                 \
  Plan mobilevit_transformer_plan(const MobileViTTransformerParams& p);                                           \
  void mobilevit_transformer_bundles(const MobileViTTransformerParams& p, int64_t begin, int64_t end);            \
  void mobilevit_transformer_step(const MobileViTTransformerParams& p, int64_t step, int64_t begin, int64_t end); \
  void mobilevit_transformer_resize(const MobileViTTransformerParams& p, int64_t begin, int64_t end);             \
  }
MVF_CPU_ISAS(MVF_DECLARE)
#undef MVF_DECLARE

}  // namespace mobilevit_fast::cpu
