// Windows of convolutions, and image batches as the kernels of the CPU see them. Strides count elements.
#pragma once

#include <cstdint>

namespace mobilevit_fast {

// Window of a convolution, in both directions.
struct Window {
  int64_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
};

namespace cpu {

struct ImageBatch {
  const void* data;
  int64_t batch, channels, height, width;
  int64_t image_stride, channel_stride, row_stride, pixel_stride;
};

}  // namespace cpu

}  // namespace mobilevit_fast
