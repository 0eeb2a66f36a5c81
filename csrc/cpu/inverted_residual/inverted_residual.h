// Inverted residual and depthwise separable convolution on the CPU: parameters and entry points.
#pragma once

#include "common/activation.h"
#include "common/image.h"
#include "cpu/cpu_isa.h"
#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {

// y = project(activation(depthwise(activation(expand(x))))) [+ x], each with scale and bias. y is dense channels_last,
// of x's element type. `packed` is float32: the panels of the expansion (none without one), then the depthwise weights
// (kernel_h, kernel_w, padded channels), scales and biases, then the panels of the projection.
struct InvertedResidualParams {
  ImageBatch x;
  Element element;
  void* y;  // (batch, out_h, out_w, outputs)
  const float* packed;
  int64_t expanded, outputs, out_h, out_w;
  Window window;
  bool expands, residual;
  Activation expand_activation, depthwise_activation, project_activation;
  int64_t rows_per_task;  // output rows; a task is one such strip of one image
};

static inline int64_t strips(const InvertedResidualParams& p) { return ceil_div(p.out_h, p.rows_per_task); }

// Floats of the depthwise part of `packed`.
static inline int64_t depthwise_floats(int64_t taps, int64_t channels) {
  return product_of(sum_of(taps, 2), round_up(channels, kBlock));
}

// Computes strips [begin, end) of all images, one after another; one function per instruction set.
#define MVF_DECLARE(isa)                                                               \
  namespace isa {                                                                      \
  void inverted_residual(const InvertedResidualParams& p, int64_t begin, int64_t end); \
  }
MVF_CPU_ISAS(MVF_DECLARE)
#undef MVF_DECLARE

}  // namespace mobilevit_fast::cpu
