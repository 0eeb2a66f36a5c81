// Resizing and cropping uint8 images on a GPU, bit for bit as Pillow does: parameters of the kernels, entry point.
#pragma once

#include "common/resampling.h"
#include "cuda/runtime.h"
#include "cuda/sizes.h"

namespace mobilevit_fast::cuda {

// y = crop(resize(image)) of one image. Strides count bytes.
struct ImageResize {
  const uint8_t* image;  // (height, width, channels), whose pixels follow one another within a row
  uint8_t* y;            // (channels, crop_h, crop_w)
  int64_t row_stride;    // of the image
  int64_t table;         // words before its tables: see ResizeTables
  int height, width, out_h, out_w;
  int top, left;       // first row and column of the crop, negative where it begins with padding
  int taps_y, taps_x;  // pixels of a window
  int ring;            // rows that a thread keeps between the two passes, a power of two; 0 where it keeps none
  bool rows_first;     // the pass over rows, which shortens columns, before the other one
  bool is_short;       // windows of three or four both ways, no coefficient negative
};

constexpr int kMaxResizes = 32;   // images of a launch: its parameters are at most 4 KB
constexpr int kRowsTogether = 4;  // that a thread resizes horizontally at a time
constexpr int kShortRing = 8;     // rows that short windows need
constexpr int kResizeThreads = 128;

// Images of one crop, and results of the same strides.
struct ResizeCropParams {
  ImageResize images[kMaxResizes];
  int32_t* tables;
  int64_t table_words;
  int64_t y_channel_stride, y_row_stride, y_pixel_stride;
  int count, crop_h, crop_w;
  int rows, ring;  // rows of the crop that a block computes; the longest ring
  Filter filter;
  bool flips;  // the channels
  bool words;  // interleaved results of 3 channels whose rows consist of aligned words
};
static_assert(sizeof(ResizeCropParams) <= 4096);

// Blocks that resize an image, and those that make its tables.
MVF_HOST_DEVICE int64_t resize_blocks(const ResizeCropParams& p) {
  return int64_t{1} * ceil_div(p.crop_h, p.rows) * ceil_div(p.crop_w, kResizeThreads);
}
MVF_HOST_DEVICE int64_t table_blocks(const ResizeCropParams& p) {
  return (int64_t{1} * p.crop_h + p.crop_w + kResizeThreads - 1) / kResizeThreads;
}

// Launches the kernels, of fewer than 2^31 blocks each.
template <int kChannels>
cudaError_t resize_crop(const ResizeCropParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
