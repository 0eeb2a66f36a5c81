// What a dense convolution takes, which of its pixels a block computes, and in which order it sums.
#pragma once

#include "conv2d_input.h"
#include "cuda/mma/fragments.h"

namespace mobilevit_fast::cuda {

// Steps that share an input.
MVF_HOST_DEVICE int conv2d_input_span(const Conv2dInput& p) {
  return p.tile.gathers ? 1 : ceil_div(p.shape.kernel_h * p.shape.kernel_w, p.tile.group);
}

// The block's output pixels and channels.
struct Conv2dPixels {
  int image, top, left, output;

  MVF_DEVICE Conv2dPixels(const Conv2dInput& p, int tile, int first_output) {
    const int across = ceil_div(p.shape.out_w, p.tile.width), down = ceil_div(p.shape.out_h, p.tile.height);
    image = tile / (across * down) * p.tile.images;
    top = tile / across % down * p.tile.height, left = tile % across * p.tile.width;
    output = first_output;
  }

  // The number of the tile's pixel among all of the result, -1 where there is none.
  MVF_DEVICE int pixel(const Conv2dInput& p, int at) const {
    const int i = image + at / (p.tile.height * p.tile.width);
    const int row = top + at / p.tile.width % p.tile.height, column = left + at % p.tile.width;
    if (i >= p.shape.batch || row >= p.shape.out_h || column >= p.shape.out_w) return -1;
    return (i * p.shape.out_h + row) * p.shape.out_w + column;
  }
};

// The order of the sum: slices of kUnits units, within them taps. A tap that sees nothing but padding is left out
// where each has its own input.
template <int kUnits>
struct Conv2dSteps {
  int units, row, column, rows, columns, span, count;  // first of the taps, how many rows of them

  MVF_DEVICE Conv2dSteps(const Conv2dInput& p, const Conv2dPixels& tile) {
    const Conv2dShape& s = p.shape;
    units = ceil_div(s.channels, kMatrixDepth) + ceil_div(s.channels2, kMatrixDepth);
    span = conv2d_input_span(p);
    row = 0, column = 0, rows = s.kernel_h, columns = s.kernel_w;
    if (p.tile.gathers) {
      seen(tile.top * s.stride_h - s.padding_h, (p.tile.height - 1) * s.stride_h, s.dilation_h, s.height, row, rows);
      seen(tile.left * s.stride_w - s.padding_w, (p.tile.width - 1) * s.stride_w, s.dilation_w, s.width, column,
           columns);
    }
    count = ceil_div(units, kUnits) * (p.tile.gathers ? rows * columns : span);
  }

  // Of taps that see pixels first + dilation * tap to that + extent, those of which some are in 0 ... size - 1.
  static MVF_DEVICE void seen(int first, int extent, int dilation, int size, int& begin, int& count) {
    int end = count;
    while (begin < end && first + extent + begin * dilation < 0) ++begin;
    while (end > begin && first + (end - 1) * dilation >= size) --end;
    count = end - begin;
  }

  // Steps are counted rather than computed: a step is short, and divisions are long.
  struct Cursor {
    int slice, row, column, stage;  // a tap of the slice; where in the ring the step's copies are
  };
  MVF_DEVICE Cursor begin() const { return {0, row, column, 0}; }
  MVF_DEVICE bool begins_slice(const Cursor& at) const { return at.row == row && at.column == column; }
  MVF_DEVICE void next_tap(Cursor& at) const {
    if (++at.column < column + columns) return;
    at.column = column;
    if (++at.row < row + rows) return;
    at.row = row, ++at.slice;
  }
  MVF_DEVICE void next_taps(Cursor& at, int taps) const {
    for (int i = 0; i < taps; ++i) next_tap(at);
  }
  static MVF_DEVICE void next_stage(Cursor& at) { at.stage = at.stage + 1 < kConv2dStages ? at.stage + 1 : 0; }

  // The step's first tap among all, and how many it takes.
  static MVF_DEVICE int tap(const Conv2dInput& p, const Cursor& at) { return at.row * p.shape.kernel_w + at.column; }
  static MVF_DEVICE int taps_from(const Conv2dInput& p, int tap) {
    const int left = p.shape.kernel_h * p.shape.kernel_w - tap;
    return left < p.tile.group ? left : p.tile.group;
  }
  MVF_DEVICE int units_of(int slice) const {
    const int left = units - slice * kUnits;
    return left < kUnits ? left : kUnits;
  }
};

}  // namespace mobilevit_fast::cuda
