// What the kernels of conv2d_bias_act share: rows of images as lines with their padding, and how tasks run.
#pragma once

#include "conv2d_bias_act.h"
#include "cpu/gemm/pixels.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// `count` pixels of three planes, as pixels side by side.
template <class T, class U>
void interleave(const T* __restrict x, int64_t plane, int64_t count, U* __restrict target) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < 3; ++c) assign(target[i * 3 + c], to_float(x[i + c * plane]));
  }
}

// Where lines come from, which are of type U: the channels of two images lie side by side; x2.channels may be 0.
template <class T, class U>
struct LineSource {
  const ImageBatch &x, &x2;

  int64_t channels() const { return x.channels + x2.channels; }

  // `count` columns of a row, `step` apart from `left` on, to pixels that are `pitch` elements apart.
  void copy_columns(int64_t image, int64_t row, int64_t left, int64_t step, int64_t count, U* target,
                    int64_t pitch) const {
    const int64_t width = row < 0 || row >= x.height ? 0 : x.width;
    const int64_t begin = smaller(count, left < 0 ? ceil_div(-left, step) : 0);
    const int64_t end = larger(begin, left < width ? smaller(count, ceil_div(width - left, step)) : 0);
    for (int64_t i = 0; i < count; ++i) {
      if (i < begin || i >= end) fill_zero(target + i * pitch, channels());
    }
    if (begin == end) return;
    const int64_t column = left + begin * step;
    target += begin * pitch;
    copy_every(x, image, row, column, step, end - begin, target, pitch);
    if (x2.channels > 0) copy_every(x2, image, row, column, step, end - begin, target + x.channels, pitch);
  }

  // Columns [left, left + width) of a row, which may lie outside the image.
  void copy(int64_t image, int64_t row, int64_t left, int64_t width, U* line) const {
    const int64_t begin = larger(left, 0), end = smaller(left + width, x.width), channels = this->channels();
    if (row < 0 || row >= x.height || begin >= end) {
      fill_zero(line, width * channels);
      return;
    }
    U* target = line + (begin - left) * channels;
    fill_zero(line, (begin - left) * channels);
    copy_inside(x, image, row, begin, end, target);
    if (x2.channels > 0) copy_inside(x2, image, row, begin, end, target + x.channels);
    fill_zero(line + (end - left) * channels, (left + width - end) * channels);
  }

 private:
  void copy_every(const ImageBatch& from, int64_t image, int64_t row, int64_t column, int64_t step, int64_t count,
                  U* target, int64_t pitch) const {
    const T* source =
        (const T*)from.data + image * from.image_stride + row * from.row_stride + column * from.pixel_stride;
    const int64_t apart = count > 1 ? step * from.pixel_stride : 0;
    copy_pixels<T>(source, apart, from.channel_stride, count, from.channels, target, pitch);
  }

  void copy_inside(const ImageBatch& from, int64_t image, int64_t row, int64_t begin, int64_t end, U* target) const {
    const T* source =
        (const T*)from.data + image * from.image_stride + row * from.row_stride + begin * from.pixel_stride;
    const int64_t count = end - begin, channels = this->channels();
    const bool alone = from.channels == channels;
    if (alone && from.channel_stride == 1 && from.pixel_stride == channels) {  // nothing between the pixels
      copy_pixels<T>(source, 0, 1, 1, count * channels, target, 0);
    } else if (alone && channels == 3 && from.pixel_stride == 1) {
      interleave<T>(source, from.channel_stride, count, target);
    } else {
      copy_pixels<T>(source, from.pixel_stride, from.channel_stride, count, from.channels, target, channels);
    }
  }
};

// Tasks [begin, end), slice by slice of a group, which is prepared once for slices that follow one another.
template <class Group>
void run_groups_of(const Conv2dBiasActParams& p, int64_t begin, int64_t end) {
  const int64_t bytes = Group(p, nullptr).bytes;
  Group group(p, thread_scratch(bytes));
  for (int64_t task = begin; task < end; ++task) {
    const int64_t index = task / p.slices, slice = task % p.slices;
    if (task == begin || slice == 0) group.prepare(index);
    group.multiply(slice);
  }
}

template <template <class> class Group>
void run_groups(const Conv2dBiasActParams& p, int64_t begin, int64_t end) {
  if constexpr (!kPairs) {
    if (p.element == Element::float32) return run_groups_of<Group<float>>(p, begin, end);
  }
  run_groups_of<Group<BFloat16>>(p, begin, end);
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
