// What the cases of sanitize.cpp share.
#pragma once

#include "buffers.h"
#include "cpu/gemm/gemm_layout.h"

namespace sanitize {
namespace {

// Changes with every call, so that neighbouring cases differ in it.
Activation next_activation() {
  static int calls = 0;
  return static_cast<Activation>(calls++ % 3);
}

// All tasks at once, then one by one from the last to the first.
template <class Run>
void in_pieces(int64_t tasks, Buffer& y, Run run) {
  run(0, tasks);
  y.expect_finite();
  y.clear();
  for (int64_t task = tasks - 1; task >= 0; --task) run(task, task + 1);
  y.expect_finite();
}

ImageBatch image_batch(const Image& image) {
  ImageBatch batch = image.batch();
  if (planted == "stride") batch.image_stride = INT64_MAX / 2 + 1;
  return batch;
}

int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

// A window that is the same in both directions, or, where the input is `oblong`, is not.
struct Geometry {
  int64_t kernel, stride, padding, dilation;
  bool oblong = false;

  Window window() const {
    const int64_t more = oblong ? 1 : 0;
    return {kernel, kernel + more, stride + more, stride, padding, padding + more, dilation, dilation + more};
  }
};

void set_output(const Window& w, int64_t height, int64_t width, int64_t& out_h, int64_t& out_w) {
  out_h = output_size(height, w.kernel_h, w.stride_h, w.padding_h, w.dilation_h);
  out_w = output_size(width, w.kernel_w, w.stride_w, w.padding_w, w.dilation_w);
}

struct Size {
  int64_t batch, height, width;
};

constexpr int64_t kFewChannels[] = {1, 3, 7, 17, 24, 33, 65};

constexpr Geometry kGeometries[] = {
    {3, 1, 1, 1},
    {3, 2, 1, 1},
    {1, 1, 0, 1},
    {5, 1, 2, 1},
    {5, 2, 2, 1},
    {7, 1, 3, 1},
    {7, 2, 3, 1},
    {3, 1, 2, 2},
    {3, 1, 4, 4},
    {3, 3, 1, 1},
    {3, 1, 0, 1, true},
    {2, 1, 1, 2, true},
    {3, 1, 1, 1, true},
    {3, 1, 6, 1},
    // Windows that mostly see padding, up to sizes of which no product may be taken.
    {3, 9, 9, 1},
    {3, 1, 1000, 1000},
    {3, int64_t{1} << 60, int64_t{1} << 60, 1},
};
constexpr Size kSizes[] = {{2, 5, 7}, {1, 9, 6}, {3, 4, 3}, {1, 8, 16}};
// Number i of them, or larger; i counts on.
Size next_size(int64_t& i, int64_t height, int64_t width) {
  const Size size = kSizes[i++ % 4];
  return {size.batch, larger(size.height, height), larger(size.width, width)};
}

}  // namespace
}  // namespace sanitize
