// uint8 images as float32 by lookups. Compiled once per instruction set, see simd.h.
//
// A table lies in the first-level cache, and its numbers are loaded one by one: that is twice as fast as gathering them
// with AVX2. What pays is to store four at a time.
#include "cpu/simd.h"
#include "pixels_to_float.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

typedef float Four __attribute__((vector_size(16)));

// Elements that follow one another, of kChannels channels in turn; kFlips: of a pixel the last one first.
template <int kChannels, bool kFlips>
void look_up(const uint8_t* x, const float* table, float* y, int64_t count) {
  constexpr int kGroup = 4 * kChannels;
  const auto value = [&](int64_t i, int j) __attribute__((always_inline)) {
    const int channel = kFlips ? kChannels - 1 - j % kChannels : j % kChannels;
    return table[channel * kBytes + x[i + j / kChannels * kChannels + channel]];
  };
  int64_t i = 0;
  for (; i + kGroup <= count; i += kGroup) {
    MVF_UNROLL
    for (int j = 0; j < kGroup; j += 4) {
      const Four four = {value(i, j), value(i, j + 1), value(i, j + 2), value(i, j + 3)};
      std::memcpy(y + i + j, &four, sizeof(four));
    }
  }
  for (; i < count; i += kChannels) {
    MVF_UNROLL
    for (int j = 0; j < kChannels; ++j) y[i + j] = value(i, j);
  }
}

void convert_row(const PixelsToFloatParams& p, const uint8_t* x, float* y) {
  const bool interleaved = p.channels == 3 && p.x_channel_stride == 1 && p.x_pixel_stride == 3 &&
                           p.y_channel_stride == 1 && p.y_pixel_stride == 3;
  if (interleaved) return (p.flips ? look_up<3, true> : look_up<3, false>)(x, p.table, y, 3 * p.width);
  for (int64_t c = 0; c < p.channels; ++c) {
    const uint8_t* from = x + c * p.x_channel_stride;
    const float* table = p.table + c * kBytes;
    float* to = y + (p.flips ? p.channels - 1 - c : c) * p.y_channel_stride;
    if (p.x_pixel_stride == 1 && p.y_pixel_stride == 1) {
      look_up<1, false>(from, table, to, p.width);
      continue;
    }
    const int64_t from_stride = p.x_pixel_stride, to_stride = p.y_pixel_stride;
    for (int64_t i = 0; i < p.width; ++i) to[i * to_stride] = table[from[i * from_stride]];
  }
}

}  // namespace

void pixels_to_float(const PixelsToFloatParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t image = row / p.height, line = row % p.height;
    convert_row(p, p.x + image * p.x_image_stride + line * p.x_row_stride,
                p.y + image * p.y_image_stride + line * p.y_row_stride);
  }
}

}  // namespace mobilevit_fast::cpu::MVF_ISA
