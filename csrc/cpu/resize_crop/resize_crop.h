// Resizing and cropping uint8 images on the CPU, bit for bit as Pillow does: parameters and entry points. Knows nothing
// of torch.
#pragma once

#include <cstdint>

#include "cpu/cpu_isa.h"
#include "windows.h"

namespace mobilevit_fast::cpu {

// y = crop(resize(image)). All strides count bytes. The image is the part of it that the crop sees; its pixels follow
// one another.
struct ResizeCropParams {
  const uint8_t* image;  // (in_h, in_w, channels)
  int64_t in_h, in_w, channels, image_row_stride;
  // Windows of the rows and columns of the result, or no pairs where it has those of the image.
  WindowTable rows, columns;
  bool rows_first;  // the pass over rows, which shortens columns, before the other one
  uint8_t* y;       // (channels, crop_h, crop_w)
  int64_t y_channel_stride, y_row_stride, y_pixel_stride;
  int64_t crop_h, crop_w;
  // The part of the crop that the resized image covers. The rest is zero.
  int64_t top, left, height, width;
};

// Rows that are resized horizontally together, and columns of a step.
constexpr int64_t kRowsTogether = 4;
static inline int64_t columns_together(int64_t channels) { return channels == 1 ? 4 : 2; }
// Pairs of coefficients that the pass over columns takes at once.
static inline int64_t pairs_together(int64_t channels) { return channels == 1 ? 4 : 1; }

// Computes rows [begin, end) of the crop; one function per instruction set.
#define MVF_DECLARE(isa)                                                   \
  namespace isa {                                                          \
  void resize_crop(const ResizeCropParams& p, int64_t begin, int64_t end); \
  }
MVF_CPU_ISAS_WITHOUT_PAIRS(MVF_DECLARE)
#undef MVF_DECLARE
MVF_CPU_SAME_WITHOUT_PAIRS(resize_crop)

}  // namespace mobilevit_fast::cpu
