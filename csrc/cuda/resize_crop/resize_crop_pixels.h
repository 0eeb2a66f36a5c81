// Pixels of a resize: as words from memory, as sums, and from a warp to the result.
#pragma once

#include "device_pixels.h"
#include "resize_tables_kernel.h"

namespace mobilevit_fast::cuda {

MVF_DEVICE uint32_t byte_of(uint32_t word, int i) { return permute_bytes(word, 0, 0x4440 + i); }

// kBytes bytes from any address on, as words.
template <int kBytes, int kWords>
MVF_DEVICE void load_bytes(const uint8_t* from, uint32_t (&word)[kWords]) {
  static_assert(kWords == (kBytes + 3) / 4);
  uint32_t aligned[kWords + 1];
  MVF_UNROLL
  for (int i = 0; i < kWords; ++i) aligned[i] = load_word_around(from + 4 * i);
  aligned[kWords] = kBytes % 4 == 1 ? 0 : load_word_around(from + kBytes - 1);
  const uint32_t bits = 8 * (reinterpret_cast<uintptr_t>(from) & 3);
  MVF_UNROLL
  for (int i = 0; i < kWords; ++i) word[i] = shift_right(aligned[i], aligned[i + 1], bits);
}

// Sums of a pixel's channels. With kHigh, coefficients have kShortBits bits and are not negative: they add up to 1,
// give or take their last bits, so that no sum overflows or needs to be clipped.
template <int kChannels, bool kHigh>
struct PixelSums {
  static constexpr int kBits = kHigh ? kShortBits : kCoefficientBits;

  uint32_t sum[kChannels];

  MVF_DEVICE PixelSums() {
    MVF_UNROLL
    for (int c = 0; c < kChannels; ++c) sum[c] = 1u << (kBits - 1);
  }
  // Pixel i of those in words; a pixel by itself is a word.
  template <int kWords>
  MVF_DEVICE void add(const uint32_t (&word)[kWords], int i, int32_t coefficient) {
    MVF_UNROLL
    for (int c = 0; c < kChannels; ++c) {
      const int byte = i * kChannels + c;
      sum[c] += byte_of(word[byte / 4], byte % 4) * static_cast<uint32_t>(coefficient);
    }
  }
  MVF_DEVICE void add(uint32_t pixel, int32_t coefficient) {
    const uint32_t word[1] = {pixel};
    add(word, 0, coefficient);
  }
  // With kHigh, bytes behind the last channel may be anything.
  MVF_DEVICE uint32_t pixel() const {
    if constexpr (kHigh && kChannels == 3) {
      return permute_bytes(permute_bytes(sum[0], sum[1], 0x0073), sum[2], 0x0710);
    } else {
      uint32_t pixel = 0;
      MVF_UNROLL
      for (int c = 0; c < kChannels; ++c) {
        const int32_t value = static_cast<int32_t>(sum[c]) >> kCoefficientBits;
        pixel |= (kHigh ? sum[c] >> kShortBits : clipped(value)) << 8 * c;
      }
      return pixel;
    }
  }

 private:
  static MVF_DEVICE uint32_t clipped(int32_t value) { return value < 0 ? 0 : value > 255 ? 255 : value; }
};

// Where the pixels of a thread's column go. All threads of a warp store pixels of a row at the same time; those beside
// the crop only help. Parameters are not copied: constant memory costs no registers.
template <int kChannels, int kThreads>
class CropStore {
 public:
  // Words in shared memory. What the last thread of a warp takes for its neighbour's word is never stored.
  static MVF_HOST_DEVICE int exchanged(const ResizeCropParams& p) {
    return p.words && kChannels == 3 ? 2 * kThreads + 1 : 0;
  }

  MVF_DEVICE CropStore(const ResizeCropParams& p, const ImageResize& image, int column, uint32_t* exchange)
      : p_(p), y_(image.y), exchange_(exchange + thread_index()), stores_(column < p.crop_w) {
    if (!p.words) {
      y_ += column * p.y_pixel_stride;
    } else {  // three of four threads have a word of their four pixels
      y_ += (column - column % 4) * int64_t{3} + column % 4 * 4;
      stores_ = stores_ && column % 4 < 3;
    }
  }

  MVF_DEVICE void operator()(int row, uint32_t pixel) const {
    if (kChannels == 3 && p_.flips) pixel = permute_bytes(pixel, 0, 0x4012);
    uint8_t* y = y_ + row * p_.y_row_stride;
    if (kChannels == 3 && p_.words) {
      uint32_t* own = exchange_ + (row & 1) * kThreads;  // turn by turn, so that one barrier a row will do
      pixel &= 0xffffff;
      store_shared(own, pixel);
      sync_warp();
      const int bits = thread_index() % 4 * 8;  // of this pixel that another thread has
      if (stores_) store_global(reinterpret_cast<uint32_t*>(y), pixel >> bits | load_shared(own + 1) << (24 - bits));
    } else if (stores_) {
      MVF_UNROLL
      for (int c = 0; c < kChannels; ++c)
        store_global(y + c * p_.y_channel_stride, static_cast<uint8_t>(pixel >> 8 * c));
    }
  }

 private:
  const ResizeCropParams& p_;
  uint8_t* y_;
  uint32_t* exchange_;
  bool stores_;
};

}  // namespace mobilevit_fast::cuda
