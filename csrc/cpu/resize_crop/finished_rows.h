// A finished row goes from a line of interleaved pixels to where the crop lies: planes, interleaved pixels of either
// order of channels, or any strides.
#pragma once

#include "cpu/simd.h"
#include "resize_crop.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

void store_by_element(const ResizeCropParams& p, const uint8_t* line, uint8_t* y, int64_t begin, int64_t end) {
  const int64_t channels = p.channels, pixel_stride = p.y_pixel_stride, channel_stride = p.y_channel_stride;
  for (int64_t x = begin; x < end; ++x) {
    for (int64_t c = 0; c < channels; ++c) y[x * pixel_stride + c * channel_stride] = line[x * channels + c];
  }
}

#if defined(__AVX2__)
constexpr int64_t kPlaneStep = 32, kReversedStep = 5;

// 32 interleaved pixels into three planes.
MVF_INLINE void store_planes(const uint8_t* line, uint8_t* y, int64_t channel_stride) {
  const auto load = [&](int64_t at) __attribute__((always_inline)) {  // 16 bytes of the first 16 pixels, and the others
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)(line + at))),
                                   _mm_loadu_si128((const __m128i*)(line + at + 48)), 1);
  };
  const auto both = [](__m128i half) { return _mm256_broadcastsi128_si256(half); };
  const __m256i a = load(0), b = load(16), c = load(32);
  // Which bytes are of the vector's channel 1 and 2, counted from its first byte.
  const __m256i ones = both(_mm_setr_epi8(0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0));
  const __m256i twos = both(_mm_setr_epi8(0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0));
  // Every byte of a channel, at its place modulo 16: a begins with red, b with green, c with blue.
  const __m256i red = _mm256_blendv_epi8(_mm256_blendv_epi8(a, b, twos), c, ones);
  const __m256i green = _mm256_blendv_epi8(_mm256_blendv_epi8(b, c, twos), a, ones);
  const __m256i blue = _mm256_blendv_epi8(_mm256_blendv_epi8(c, a, twos), b, ones);
  const __m256i red_order = both(_mm_setr_epi8(0, 3, 6, 9, 12, 15, 2, 5, 8, 11, 14, 1, 4, 7, 10, 13));
  const __m256i green_order = both(_mm_setr_epi8(1, 4, 7, 10, 13, 0, 3, 6, 9, 12, 15, 2, 5, 8, 11, 14));
  const __m256i blue_order = both(_mm_setr_epi8(2, 5, 8, 11, 14, 1, 4, 7, 10, 13, 0, 3, 6, 9, 12, 15));
  _mm256_storeu_si256((__m256i*)y, _mm256_shuffle_epi8(red, red_order));
  _mm256_storeu_si256((__m256i*)(y + channel_stride), _mm256_shuffle_epi8(green, green_order));
  _mm256_storeu_si256((__m256i*)(y + 2 * channel_stride), _mm256_shuffle_epi8(blue, blue_order));
}

// Pixels with their channels reversed, five at a time, as long as 16 bytes may be written; the number of these pixels.
MVF_INLINE int64_t store_reversed(const uint8_t* line, uint8_t* first, int64_t width) {
  const __m128i order = _mm_setr_epi8(2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9, 14, 13, 12, -1);
  int64_t x = 0;
  for (; x + kReversedStep < width; x += kReversedStep) {  // a sixth pixel has the last byte
    const __m128i pixels = _mm_loadu_si128((const __m128i*)(line + 3 * x));
    _mm_storeu_si128((__m128i*)(first + 3 * x), _mm_shuffle_epi8(pixels, order));
  }
  return x;
}
#endif

// Whether a row of the crop is a line as it stands.
MVF_INLINE bool is_line(const ResizeCropParams& p) {
  return p.y_pixel_stride == p.channels && (p.channels == 1 || p.y_channel_stride == 1);
}

// `y`: the first channel of the first pixel.
MVF_INLINE void store_row(const ResizeCropParams& p, const uint8_t* line, uint8_t* y) {
  int64_t done = 0;
  if (is_line(p)) {
    std::memcpy(y, line, p.width * p.channels);
    return;
  }
#if defined(__AVX2__)
  if (p.channels == 3 && p.y_pixel_stride == 1 && p.width >= kPlaneStep) {
    for (; done < p.width; done += kPlaneStep) {
      const int64_t x = done + kPlaneStep <= p.width ? done : p.width - kPlaneStep;  // the last may overlap
      store_planes(line + 3 * x, y + x, p.y_channel_stride);
    }
    return;
  }
  if (p.channels == 3 && p.y_pixel_stride == 3 && p.y_channel_stride == -1) {
    done = store_reversed(line, y - 2, p.width);
  }
#endif
  store_by_element(p, line, y, done, p.width);
}

// Columns [begin, end) of a row of the crop, which the image does not cover.
MVF_INLINE void clear_row(const ResizeCropParams& p, uint8_t* y, int64_t begin, int64_t end) {
  const int64_t channels = p.channels, pixel_stride = p.y_pixel_stride, channel_stride = p.y_channel_stride;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t x = begin; x < end; ++x) y[c * channel_stride + x * pixel_stride] = 0;
  }
}

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
