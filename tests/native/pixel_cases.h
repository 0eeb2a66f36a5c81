// Cases of the operators on uint8 images: blocks of exact size, rows that lie apart, results of every layout.
#pragma once

#include <functional>
#include <initializer_list>

#include "cases.h"
#include "cpu/pixels_to_float/pixels_to_float.h"
#include "cpu/resize_crop/plan.h"

namespace sanitize {
namespace {

// Whether the case of an operator with these numbers is to run.
using Begins = std::function<bool(const char*, std::initializer_list<int64_t>)>;

struct PixelVariant {
  Isa isa;
  void (*resize_crop)(const ResizeCropParams&, int64_t, int64_t);
  void (*pixels_to_float)(const PixelsToFloatParams&, int64_t, int64_t);
};

#define MVF_ENTRY(isa) {Isa::isa, isa::resize_crop, isa::pixels_to_float},
constexpr PixelVariant kPixelVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

constexpr int64_t kTooLarge = INT64_MAX / 2 + 1;  // a stride; addresses overflow from the third row or image on

// Strides of an image (channels, height, width), with `gap` elements between rows.
struct PixelLayout {
  int64_t channel, row, pixel, elements;

  PixelLayout(bool interleaved, int64_t channels, int64_t height, int64_t width, int64_t gap) {
    pixel = interleaved ? channels : 1;
    row = width * pixel + gap;
    channel = interleaved ? 1 : height * row;
    elements = (interleaved ? height * row : channels * channel) - gap;
  }
};

// A block of so many bytes on the heap.
class Bytes {
 public:
  Bytes(const char* name, int64_t count) : count_(count - (planted == name ? 1 : 0)), data_(new uint8_t[count_]) {
    for (int64_t i = 0; i < count_; ++i) data_[i] = static_cast<uint8_t>(128 + 127 * random_number());
  }
  ~Bytes() { delete[] data_; }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  // Ends the program unless both have the same bytes.
  void expect_same(const Bytes& other) const {
    if (std::memcmp(data_, other.data_, count_) == 0) return;
    std::fprintf(stderr, "%s: rows one by one have other pixels than all at once\n", running.c_str());
    std::exit(1);
  }
  uint8_t* data() const { return data_; }

 private:
  int64_t count_;
  uint8_t* data_;
};

void run_resize_crop(const PixelVariant& variant, const Begins& begins, const Resize& resize, int64_t channels,
                     int64_t crop_h, int64_t crop_w, int64_t gap, bool interleaved, bool flips) {
  if (!begins("resize_crop", {static_cast<int64_t>(resize.filter), channels, resize.in_h, resize.in_w, resize.out_h,
                              resize.out_w, crop_h, crop_w})) {
    return;
  }
  const PixelLayout from(true, channels, resize.in_h, resize.in_w, gap), to(interleaved, channels, crop_h, crop_w, 0);
  const Bytes image("x", from.elements), y("y", to.elements), again("y", to.elements);
  ResizeCropParams p{};
  p.image = image.data(), p.channels = channels;
  p.image_row_stride = from.row;
  p.crop_h = crop_h, p.crop_w = crop_w;
  p.y_channel_stride = flips ? -to.channel : to.channel, p.y_pixel_stride = to.pixel;
  p.y_row_stride = planted == "stride" ? kTooLarge : to.row;
  const int64_t first = flips ? (channels - 1) * to.channel : 0;
  p.y = y.data() + first;
  const ResizePlan plan(resize, p);
  for (int64_t row = crop_h - 1; row >= 0; --row) variant.resize_crop(plan.params(), row, row + 1);
  ResizeCropParams at_once = plan.params();
  at_once.y = again.data() + first;
  variant.resize_crop(at_once, 0, crop_h);
  y.expect_same(again);
}

void run_pixels_to_float(const PixelVariant& variant, const Begins& begins, int64_t channels, int64_t height,
                         int64_t width, bool from_interleaved, bool to_interleaved, bool flips) {
  if (!begins("pixels_to_float", {channels, height, width, from_interleaved, to_interleaved})) return;
  constexpr int64_t kImages = 3;
  const PixelLayout from(from_interleaved, channels, kImages * height, width, 0),
      to(to_interleaved, channels, kImages * height, width, 0);
  const Bytes x("x", from.elements);
  Buffer table("table", channels * kBytes), y("y", to.elements);
  table.fill(1);
  PixelsToFloatParams p{};
  p.x = x.data(), p.table = table.floats(), p.y = y.floats();
  p.channels = channels, p.height = height, p.width = width, p.flips = flips;
  p.x_image_stride = planted == "stride" ? kTooLarge : height * from.row, p.y_image_stride = height * to.row;
  p.x_channel_stride = from.channel, p.x_row_stride = from.row, p.x_pixel_stride = from.pixel;
  p.y_channel_stride = to.channel, p.y_row_stride = to.row, p.y_pixel_stride = to.pixel;
  if (planted == "stride") variant.pixels_to_float(p, 2 * height, 3 * height);
  in_pieces(kImages * height, y, [&](int64_t begin, int64_t end) { variant.pixels_to_float(p, begin, end); });
}

void pixel_cases(Isa isa, const Begins& begins) {
  const PixelVariant& variant = kPixelVariants[static_cast<int>(isa)];
  constexpr int64_t kEdges[][2] = {{1, 1}, {1, 9}, {2, 40}, {7, 3}, {13, 13}, {20, 61}, {33, 8}, {70, 45}};
  constexpr int64_t kCrops[][2] = {{1, 1}, {5, 41}, {16, 33}, {40, 7}, {24, 70}};
  int64_t i = 0;
  for (int64_t filter = 1; filter <= 5; ++filter) {
    for (const auto& in : kEdges) {
      for (const auto& out : kEdges) {
        const auto& crop = kCrops[i % 5];
        const Resize resize{static_cast<Filter>(filter), in[0],         in[1], out[0], out[1], (out[0] - crop[0]) / 2,
                            (out[1] - crop[1]) / 2,      i / 2 % 2 == 0};
        run_resize_crop(variant, begins, resize, i % 3 == 0 ? 1 : 3, crop[0], crop[1], i % 4, i % 2 == 0,
                        i / 4 % 2 == 0);
        ++i;
      }
    }
  }
  for (const int64_t width : {1, 3, 4, 5, 16, 37}) {
    for (const int64_t channels : {1, 3, 4}) {
      for (int layouts = 0; layouts < 8; ++layouts) {
        run_pixels_to_float(variant, begins, channels, 3, width, layouts % 2 > 0, layouts / 2 % 2 > 0, layouts / 4 > 0);
      }
    }
  }
}

}  // namespace
}  // namespace sanitize
