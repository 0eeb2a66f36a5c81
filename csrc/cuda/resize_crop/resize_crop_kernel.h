// Antialiased resizing of uint8 images and a crop of the result, in Pillow's two passes, with bytes in between.
//
// A thread owns a column of the crop and goes down the rows of its block. It keeps the horizontally resized pixels that
// the vertical windows still need in a ring of its own in shared memory, so threads never wait for each other.
#pragma once

#include "resize_crop_pixels.h"

namespace mobilevit_fast::cuda {

template <int kChannels>
struct ResizeCrop {
  using Params = ResizeCropParams;

  static constexpr int kThreads = kResizeThreads, kResident = 8;

  static MVF_HOST_DEVICE int strips(const Params& p) { return ceil_div(p.crop_h, p.rows); }
  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.count * resize_blocks(p)); }
  static size_t shared_bytes(const Params& p) {
    return shared_size<uint32_t>(p.ring * kThreads) + shared_size<uint32_t>(Store::exchanged(p));
  }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    visit("tables", p.tables, p.table_words * static_cast<int64_t>(sizeof(int32_t)));
    for (int i = 0; i < p.count; ++i) {
      const ImageResize& image = p.images[i];
      visit("image", image.image, (image.height - 1) * image.row_stride + int64_t{1} * image.width * kChannels);
      visit("y", image.y,
            (kChannels - 1) * p.y_channel_stride + (p.crop_h - 1) * p.y_row_stride + (p.crop_w - 1) * p.y_pixel_stride +
                1);
    }
  }

  static MVF_DEVICE void run(const Params& p) {
    const int blocks = static_cast<int>(resize_blocks(p)), block = block_index() % blocks;
    const ImageResize& image = p.images[block_index() / blocks];
    const int first = block % strips(p) * p.rows, x = block / strips(p) * kThreads + thread_index();
    const int last = first + p.rows < p.crop_h ? first + p.rows : p.crop_h;
    SharedMemory shared;
    uint32_t* ring = shared.template take<uint32_t>(p.ring * kThreads) + thread_index();
    const Store store(p, image, x, shared.template take<uint32_t>(Store::exchanged(p)));
    const Column column(p, image, x < p.crop_w ? x : p.crop_w - 1);  // those beside the crop do as the last one
    if (image.rows_first) {
      for (int y = first; y < last; ++y) store(y, rows_first(column, y));
    } else if (image.is_short && image.taps_x == 3) {
      short_windows<3>(column, first, last, ring, store);
    } else if (image.is_short) {
      short_windows<4>(column, first, last, ring, store);
    } else {
      any_windows(column, first, last, ring, store);
    }
  }

 private:
  using Sums = PixelSums<kChannels, false>;
  using Store = CropStore<kChannels, kThreads>;

  // A column of the crop: the pixels of its window in row 0, and their coefficients, crop_w elements apart.
  struct Column {
    const Params& p;
    const ImageResize& image;
    const uint8_t* pixels;
    const int32_t *coefficients, *rows;

    MVF_DEVICE Column(const Params& p, const ImageResize& image, int x) : p(p), image(image) {
      const ResizeTables tables(p, image);
      pixels = image.image + int64_t{kChannels} * load_written(tables.begins + x);
      coefficients = tables.columns + x, rows = tables.rows;
    }
    // Rows past the last one repeat it; nobody looks at them.
    MVF_DEVICE const uint8_t* row(int y) const {
      return pixels + (y < image.height ? y : image.height - 1) * image.row_stride;
    }
    MVF_DEVICE int32_t coefficient(int k) const { return load_written(coefficients + int64_t{1} * k * p.crop_w); }
    // The first row of a window, and behind it the coefficients.
    MVF_DEVICE const int32_t* window(int y) const { return rows + int64_t{1} * y * (1 + image.taps_y); }
  };

  // Pixels of rows `y` and on.
  static MVF_DEVICE void resize_rows(const Column& column, int y, uint32_t (&pixel)[kRowsTogether]) {
    Sums sums[kRowsTogether];
    const uint8_t* row[kRowsTogether];
    MVF_UNROLL
    for (int i = 0; i < kRowsTogether; ++i) row[i] = column.row(y + i);
    if (column.image.taps_x % 4 == 0) {
      MVF_NO_UNROLL
      for (int k = 0; k < column.image.taps_x; k += 4) {
        int32_t c[4];
        MVF_UNROLL
        for (int j = 0; j < 4; ++j) c[j] = column.coefficient(k + j);
        uint32_t word[kRowsTogether][kChannels];
        MVF_UNROLL
        for (int i = 0; i < kRowsTogether; ++i) load_bytes<4 * kChannels>(row[i] + k * kChannels, word[i]);
        MVF_UNROLL
        for (int i = 0; i < kRowsTogether; ++i) {
          MVF_UNROLL
          for (int j = 0; j < 4; ++j) sums[i].add(word[i], j, c[j]);
        }
      }
    } else {
      MVF_NO_UNROLL
      for (int k = 0; k < column.image.taps_x; ++k) {
        const int32_t c = column.coefficient(k);
        MVF_UNROLL
        for (int i = 0; i < kRowsTogether; ++i) {
          uint32_t word[1];
          load_bytes<kChannels>(row[i] + k * kChannels, word);
          sums[i].add(word, 0, c);
        }
      }
    }
    MVF_UNROLL
    for (int i = 0; i < kRowsTogether; ++i) pixel[i] = sums[i].pixel();
  }

  // Windows of any length. Where they have more rows than a ring, every row is resized for each window that sees it.
  static MVF_DEVICE void any_windows(const Column& column, int first, int last, uint32_t* ring, const Store& store) {
    const int mask = column.image.ring - 1, taps = column.image.taps_y;
    const bool has_ring = column.image.ring > 0;
    int next = load_written(column.window(first));
    MVF_NO_UNROLL
    for (int y = first; y < last; ++y) {
      const int32_t* window = column.window(y);
      const int begin = load_written(window);
      next = next < begin || !has_ring ? begin : next;
      ++window;
      Sums sums;
      MVF_NO_UNROLL
      for (; next < begin + taps; next += kRowsTogether) {
        uint32_t pixel[kRowsTogether];
        resize_rows(column, next, pixel);
        MVF_UNROLL
        for (int i = 0; i < kRowsTogether; ++i) {
          const int row = next + i;
          if (has_ring) {
            store_shared(ring + (row & mask) * kThreads, pixel[i]);
          } else if (row < begin + taps) {
            sums.add(pixel[i], load_written(window + row - begin));
          }
        }
      }
      MVF_NO_UNROLL
      for (int k = 0; k < taps && has_ring; ++k) {
        sums.add(load_shared(ring + ((begin + k) & mask) * kThreads), load_written(window + k));
      }
      store(y, sums.pixel());
    }
  }

  // Windows of three or four rows and columns, which are all that enlarging and reducing to more than half need.
  template <int kTaps>
  static MVF_DEVICE void short_windows(const Column& column, int first, int last, uint32_t* ring, const Store& store) {
    constexpr int kBytes = kTaps * kChannels, kMask = kShortRing - 1;
    int32_t c[kTaps];
    MVF_UNROLL
    for (int k = 0; k < kTaps; ++k) c[k] = column.coefficient(k);
    int next = load_written(column.window(first));
    MVF_NO_UNROLL
    for (int y = first; y < last; ++y) {
      const int32_t* window = column.window(y);
      const int begin = load_written(window);
      int32_t d[kTaps];
      MVF_UNROLL
      for (int k = 0; k < kTaps; ++k) d[k] = load_written(window + 1 + k);
      next = next < begin ? begin : next;
      MVF_NO_UNROLL
      for (; next < begin + kTaps; next += kRowsTogether) {
        uint32_t word[kRowsTogether][(kBytes + 3) / 4];
        MVF_UNROLL
        for (int i = 0; i < kRowsTogether; ++i) load_bytes<kBytes>(column.row(next + i), word[i]);
        MVF_UNROLL
        for (int i = 0; i < kRowsTogether; ++i) {
          PixelSums<kChannels, true> sums;
          MVF_UNROLL
          for (int k = 0; k < kTaps; ++k) sums.add(word[i], k, c[k]);
          store_shared(ring + ((next + i) & kMask) * kThreads, sums.pixel());
        }
      }
      PixelSums<kChannels, true> sums;
      MVF_UNROLL
      for (int k = 0; k < kTaps; ++k) sums.add(load_shared(ring + ((begin + k) & kMask) * kThreads), d[k]);
      store(y, sums.pixel());
    }
  }

  // The other order, for which images are so rare that columns are resized for each window that sees them.
  static MVF_DEVICE uint32_t rows_first(const Column& column, int y) {
    Sums sums;
    int k = 0;
    MVF_NO_UNROLL
    for (; k + 4 <= column.image.taps_x; k += 4) shortened_columns<4>(column, y, k, sums);
    MVF_NO_UNROLL
    for (; k < column.image.taps_x; ++k) shortened_columns<1>(column, y, k, sums);
    return sums.pixel();
  }
  template <int kColumns>
  static MVF_DEVICE void shortened_columns(const Column& column, int y, int k, Sums& result) {
    constexpr int kBytes = kColumns * kChannels;
    const int32_t* window = column.window(y);
    const int begin = load_written(window);
    Sums sums[kColumns];
    MVF_NO_UNROLL
    for (int row = 0; row < column.image.taps_y; ++row) {
      uint32_t word[(kBytes + 3) / 4];
      load_bytes<kBytes>(column.row(begin + row) + k * kChannels, word);
      const int32_t c = load_written(window + 1 + row);
      MVF_UNROLL
      for (int i = 0; i < kColumns; ++i) sums[i].add(word, i, c);
    }
    MVF_UNROLL
    for (int i = 0; i < kColumns; ++i) result.add(sums[i].pixel(), column.coefficient(k + i));
  }
};

}  // namespace mobilevit_fast::cuda
