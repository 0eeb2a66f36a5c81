// uint8 images as float32 on the CPU, by a table for each channel: parameters and entry points. Knows nothing of torch.
#pragma once

#include <cstdint>

#include "cpu/cpu_isa.h"

namespace mobilevit_fast::cpu {

constexpr int64_t kBytes = 256;

// y = table[channel][x], channel by channel; those of y may be in reverse order. All strides count elements.
struct PixelsToFloatParams {
  const uint8_t* x;    // (batch, channels, height, width)
  const float* table;  // (channels, 256)
  float* y;            // (batch, channels, height, width)
  int64_t channels, height, width;
  int64_t x_image_stride, x_channel_stride, x_row_stride, x_pixel_stride;
  int64_t y_image_stride, y_channel_stride, y_row_stride, y_pixel_stride;
  bool flips;  // y's first channel is x's last
};

// Computes rows [begin, end) of all images; one function per instruction set.
#define MVF_DECLARE(isa)                                                          \
  namespace isa {                                                                 \
  void pixels_to_float(const PixelsToFloatParams& p, int64_t begin, int64_t end); \
  }
MVF_CPU_ISAS_WITHOUT_PAIRS(MVF_DECLARE)
#undef MVF_DECLARE
MVF_CPU_SAME_WITHOUT_PAIRS(pixels_to_float)

}  // namespace mobilevit_fast::cpu
