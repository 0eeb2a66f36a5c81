// From sizes to what the kernels are told of them: lengths of windows, which way an image goes, rows of a block.
#pragma once

#include <algorithm>

#include "common/counts.h"
#include "common/resampling_windows.h"
#include "resize_crop.h"

namespace mobilevit_fast::cuda {

constexpr int kLongestRing = 128;      // rows
constexpr int kMostRows = 32;          // of the crop that a block computes
constexpr int kStripsOfProcessor = 3;  // that a multiprocessor has at least before blocks take more rows

// Windows of a length that the kernels have a fast way for if such ones fit into the image.
inline int taps_of(int64_t longest, int multiple, int64_t in) {
  const int64_t whole = (longest + multiple - 1) / multiple * multiple;
  return static_cast<int>(whole <= in ? whole : std::min(longest, in));
}

inline void plan_image(const ResizeCropParams& p, ImageResize& image) {
  const int64_t longest_y = Resampling(p.filter, image.height, image.out_h).longest();
  const int64_t longest_x = Resampling(p.filter, image.width, image.out_w).longest();
  const bool may_be_short = p.filter != Filter::bicubic && p.filter != Filter::lanczos && !image.rows_first;
  const int multiple = may_be_short && std::max(longest_y, longest_x) <= 3 ? 3 : 4;
  image.taps_y = taps_of(longest_y, multiple, image.height), image.taps_x = taps_of(longest_x, multiple, image.width);
  image.is_short = may_be_short && image.taps_y == image.taps_x && (image.taps_x == 3 || image.taps_x == 4);
  image.ring = kShortRing;
  while (image.ring <= kLongestRing && image.ring < image.taps_y + kRowsTogether - 1) image.ring *= 2;
  if (image.rows_first || image.ring > kLongestRing) image.ring = 0;
}

// All that follows from sizes, addresses and strides.
inline void plan_resizes(ResizeCropParams& p, int channels, int processors) {
  p.table_words = p.ring = 0;
  p.words =
      channels == 3 && p.y_channel_stride == 1 && p.y_pixel_stride == 3 && p.y_row_stride % 4 == 0 && p.crop_w % 4 == 0;
  p.rows = kMostRows;
  bool short_windows = true;
  for (int i = 0; i < p.count; ++i) {
    ImageResize& image = p.images[i];
    plan_image(p, image);
    image.table = p.table_words;
    p.table_words = sum_of(p.table_words, product_of(p.crop_h, sum_of(image.taps_y, 1)));
    p.table_words = sum_of(p.table_words, product_of(p.crop_w, sum_of(image.taps_x, 1)));
    p.ring = std::max(p.ring, image.ring);
    p.words = p.words && reinterpret_cast<uintptr_t>(image.y) % 4 == 0;
    short_windows = short_windows && image.taps_y <= 4;
  }
  const int64_t rows = int64_t{1} * p.count * p.crop_h, least = short_windows ? 4 : 2;
  while (p.rows > least && rows < int64_t{1} * kStripsOfProcessor * processors * p.rows) p.rows /= 2;
}

}  // namespace mobilevit_fast::cuda
