// Bilinear resizing between an image and the grid of its patches, corners not aligned. Compiled once per instruction
// set.
#pragma once

#include "cpu/attention/tokens.h"
#include "cpu/gemm/pixels.h"
#include "mobilevit_transformer.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// The two source positions, and their weights, of position `index` on an axis resized from `source` to `target`.
struct Sample {
  int64_t index[2];
  float weight[2];

  Sample(int64_t position, int64_t target, int64_t source) {
    const float scale = (float)source / (float)target;
    const float at = ((float)position + 0.5f) * scale - 0.5f;
    const float real = at > 0 ? at : 0;
    index[0] = smaller((int64_t)real, source - 1);
    index[1] = smaller(index[0] + 1, source - 1);
    weight[1] = real - (float)index[0];
    weight[0] = 1 - weight[1];
  }
};

// The linear layer's sums alone. Resizing commutes with everything up to the bias, and the activation has to follow it.
MVF_INLINE void multiply_sums(const Linear& linear, const Operands& in, const Blocks& out) {
  multiply_tokens<false, false>(linear, in, out, Activation::none);
}

template <class T>
void resize_rows(const MobileViTTransformerParams& p, int64_t begin, int64_t end) {
  const int64_t grid_height = p.grid_h * p.patch_h, grid_width = p.grid_w * p.patch_w, outputs = p.outputs;
  const float* end_of_packed = p.packed_end - 2 * round_up(outputs, kRowGroups.rows);
  for (int64_t line = begin; line < end; ++line) {
    const int64_t image = line / p.x.height, y_row = line % p.x.height;
    const Sample row(y_row, p.x.height, grid_height);
    const float* source = p.resized + image * grid_height * grid_width * outputs;
    T* target = (T*)p.y + line * p.x.width * outputs;
    for (int64_t x = 0; x < p.x.width; ++x, target += outputs) {
      const Sample column(x, p.x.width, grid_width);
      const float* corner[2][2];
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) corner[i][j] = source + (row.index[i] * grid_width + column.index[j]) * outputs;
      }
      const float *scale = end_of_packed, *bias = scale + round_up(outputs, kRowGroups.rows);
      for (int64_t o = 0; o < outputs; o += kLanes) {
        const int64_t count = smaller(kLanes, outputs - o);
        auto load = [&](const float* from) { return load_first(from + o, count); };
        const Float top = load(corner[0][0]) * column.weight[0] + load(corner[0][1]) * column.weight[1];
        const Float bottom = load(corner[1][0]) * column.weight[0] + load(corner[1][1]) * column.weight[1];
        Float value[1] = {(top * row.weight[0] + bottom * row.weight[1]) * load(scale) + load(bias)};
        activate<1>(p.out_activation, value);
        store_first(target + o, value[0], count);
      }
    }
  }
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
