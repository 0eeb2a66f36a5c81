// Depthwise convolution on the CPU: parameters and entry points. Knows nothing of torch.
#pragma once

#include <cstdint>

#include "common/activation.h"
#include "cpu/cpu_isa.h"

namespace mobilevit_fast::cpu {

// y = activation(scale * conv(x) + bias). All strides count elements. The channel stride of x is 1; y is dense
// channels_last. x, weight and y share an element type.
struct DepthwiseConv2dParams {
  const void* x;       // (batch, in_h, in_w, channels)
  const void* weight;  // (kernel_h, kernel_w, channels)
  const float* scale;  // (channels): the sum is multiplied with it before the bias is added
  const float* bias;   // (channels)
  void* y;             // (batch, out_h, out_w, channels)
  Element element;
  Activation activation;
  int64_t batch, channels, in_h, in_w, out_h, out_w;
  int64_t x_image_stride, x_row_stride, x_pixel_stride;
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t padding_h, padding_w;
  int64_t dilation_h, dilation_w;
  // How the output is cut into independent tasks: image x block of rows x block of channels, channels fastest.
  int64_t rows_per_task, channels_per_task;
};

static inline int64_t row_blocks(const DepthwiseConv2dParams& p) {
  return (p.out_h + p.rows_per_task - 1) / p.rows_per_task;
}

static inline int64_t channel_blocks(const DepthwiseConv2dParams& p) {
  const int64_t blocks = p.channels / p.channels_per_task;  // the last block takes the remainder as well
  return blocks > 0 ? blocks : 1;
}

static inline int64_t task_count(const DepthwiseConv2dParams& p) { return p.batch * row_blocks(p) * channel_blocks(p); }

// Computes tasks [begin, end); one function per instruction set.
#define MVF_DECLARE(isa)                                                             \
  namespace isa {                                                                    \
  void depthwise_conv2d(const DepthwiseConv2dParams& p, int64_t begin, int64_t end); \
  }
MVF_CPU_ISAS_WITHOUT_PAIRS(MVF_DECLARE)
#undef MVF_DECLARE
MVF_CPU_SAME_WITHOUT_PAIRS(depthwise_conv2d)

}  // namespace mobilevit_fast::cpu
