// Atrous spatial pyramid pooling on the CPU: parameters and entry points.
#pragma once

#include "common/activation.h"
#include "common/image.h"
#include "cpu/cpu_isa.h"
#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {

constexpr int64_t kAtrousTaps = 9;  // of a 3x3 window

// y = activation(project([pointwise(x), atrous_1(x), ..., atrous_n(x), pool(mean(x))])), every convolution with scale,
// bias and activation; y is dense channels_last, of x's element type. `packed` is panels: of the pointwise convolution,
// of the atrous ones, of that of the means, of the projection of the features without that of the means, and of the
// projection of the latter, which alone holds the bias.
struct AsppParams {
  ImageBatch x;
  Element element;
  float* pixels;      // (batch, height, width, channels): x as float32, or null where x can be read where it is
  float* image_bias;  // (batch, outputs, padded to a block): what the means add to all pixels of an image
  void* y;            // (batch, height, width, outputs)
  const float* packed;
  int64_t features, outputs;  // channels of a branch, and of y
  const int64_t* rates;       // dilation and padding of each atrous convolution
  int64_t rate_count;
  Activation activation;
  int64_t tile_rows, tile_columns;  // tiles of an image, in both directions
};

// Features of a pixel that lie side by side: all but those of the means, which are the same for a whole image.
static inline int64_t aspp_width(const AsppParams& p) { return (p.rate_count + 1) * p.features; }

// What the means add to every pixel, and the float32 pixels; a task is one image.
static inline int64_t aspp_pool_tasks(const AsppParams& p) { return p.x.batch; }
// Everything else, after that; a task is one tile of one image.
static inline int64_t aspp_tasks(const AsppParams& p) { return p.x.batch * p.tile_rows * p.tile_columns; }

// Each computes tasks [begin, end); one function per instruction set.
#define MVF_DECLARE(isa)                                           \
  namespace isa {                                                  \
  void aspp_pool(const AsppParams& p, int64_t begin, int64_t end); \
  void aspp(const AsppParams& p, int64_t begin, int64_t end);      \
  }
MVF_CPU_ISAS_WITHOUT_PAIRS(MVF_DECLARE)
#undef MVF_DECLARE
MVF_CPU_SAME_WITHOUT_PAIRS(aspp_pool)
MVF_CPU_SAME_WITHOUT_PAIRS(aspp)

}  // namespace mobilevit_fast::cpu
