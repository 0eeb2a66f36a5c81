// Tables of a resize: for every row and column of a crop the window of the image that it sees, and its coefficients.
// Windows are all of one length and lie inside of the image; where Pillow's is shorter, and in the padding of a crop
// that is larger than the image, coefficients are zero. So nothing else knows of edges.
#pragma once

#include "common/resampling_windows.h"
#include "cuda/device.h"
#include "resize_crop.h"

namespace mobilevit_fast::cuda {

// Of coefficients of so many bits that are not negative, a sum's highest byte is the result.
constexpr int kShortBits = 24;

// The tables of an image.
struct ResizeTables {
  int32_t* rows;     // (crop_h, 1 + taps_y): first row of a window, coefficients
  int32_t* begins;   // (crop_w): first column of a window
  int32_t* columns;  // (taps_x, crop_w): coefficients

  MVF_DEVICE ResizeTables(const ResizeCropParams& p, const ImageResize& image)
      : rows(p.tables + image.table),
        begins(rows + static_cast<int64_t>(p.crop_h) * (1 + image.taps_y)),
        columns(begins + p.crop_w) {}
};

// A thread makes the window of a row or a column of the crop: rows first.
struct MakeResizeTables {
  using Params = ResizeCropParams;

  static constexpr int kThreads = kResizeThreads;

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.count * table_blocks(p)); }
  static size_t shared_bytes(const Params&) { return 0; }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    visit("tables", p.tables, p.table_words * static_cast<int64_t>(sizeof(int32_t)));
  }

  static MVF_DEVICE void run(const Params& p) {
    const int blocks = static_cast<int>(table_blocks(p));
    const ImageResize& image = p.images[block_index() / blocks];
    const int64_t index = static_cast<int64_t>(block_index() % blocks) * kThreads + thread_index();
    const ResizeTables tables(p, image);
    const int factor = image.is_short ? 1 << (kShortBits - kCoefficientBits) : 1;
    if (index < p.crop_h) {
      int32_t* row = tables.rows + index * (1 + image.taps_y);
      make_window(Resampling(p.filter, image.height, image.out_h), image.top + index, image.taps_y, factor, row,
                  row + 1, 1);
    } else if (index < int64_t{1} * p.crop_h + p.crop_w) {
      const int64_t column = index - p.crop_h;
      make_window(Resampling(p.filter, image.width, image.out_w), image.left + column, image.taps_x, factor,
                  tables.begins + column, tables.columns + column, p.crop_w);
    }
  }

 private:
  // Coefficients lie `stride` elements apart.
  static MVF_DEVICE void make_window(const Resampling& edge, int64_t place, int taps, int factor, int32_t* begin,
                                     int32_t* coefficients, int64_t stride) {
    const bool is_there = place >= 0 && place < edge.out;
    const Rounded center = edge.center(place < 0 ? 0 : place < edge.out ? place : edge.out - 1);
    const int64_t first = edge.begin(center), end = edge.end(center);
    Rounded sum = 0.0;
    for (int64_t i = first; i < end; ++i) sum = sum + edge.weight(i, center);
    const int64_t start = first + taps <= edge.in ? first : edge.in - taps;
    store_global(begin, static_cast<int32_t>(start));
    for (int64_t i = start; i < start + taps; ++i, coefficients += stride) {
      const bool counts = is_there && i >= first && i < end;
      store_global(coefficients, counts ? Resampling::coefficient(edge.weight(i, center), sum) * factor : 0);
    }
  }
};

}  // namespace mobilevit_fast::cuda
