// Memory of exactly the size that a kernel may touch, for the sanitizers to watch.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "common/activation.h"
#include "common/image.h"
#include "cpu/scratch.h"

namespace sanitize {

using namespace mobilevit_fast::cpu;
using mobilevit_fast::Activation;
using mobilevit_fast::Window;

// A fault to plant: the buffer of this name is one element too short.
inline std::string planted;
// What runs, for messages.
inline std::string running;

inline int64_t size_of(Element element) { return element == Element::float32 ? 4 : 2; }

// Numbers of [-1, 1), the same in every run.
inline float random_number() {
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
}

// A block of its own on the heap, filled with NaN.
class Buffer {
 public:
  Buffer(const char* name, int64_t count, Element element = Element::float32)
      : name_(name), element_(element), bytes_((count - (planted == name ? 1 : 0)) * size_of(element)) {
    data_ = new char[bytes_ > 0 ? bytes_ : 0];
    clear();
  }
  ~Buffer() { delete[] data_; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void clear() { std::memset(data_, 0xff, bytes_); }

  void set(int64_t i, float value) {
    if ((i + 1) * size_of(element_) > bytes_) return;  // a planted fault is the kernel's to meet
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (element_ == Element::float32) {
      std::memcpy(data_ + 4 * i, &value, sizeof(value));
    } else {
      const uint16_t upper = static_cast<uint16_t>(bits >> 16);
      std::memcpy(data_ + 2 * i, &upper, sizeof(upper));
    }
  }

  // All elements: numbers of [shift - scale, shift + scale).
  void fill(float scale, float shift = 0) {
    for (int64_t i = 0; i < bytes_ / size_of(element_); ++i) set(i, shift + scale * random_number());
  }

  // All words: two such numbers of bfloat16, which as one of float32 are about the second.
  void fill_words(float scale) {
    for (int64_t i = 0; i < bytes_ / 4; ++i) {
      set(i, scale * random_number());
      std::memcpy(data_ + 4 * i, data_ + 4 * i + 2, 2);
    }
  }

  // Ends the program unless every element is a finite number: written, and from nothing that was not.
  void expect_finite() const {
    for (int64_t i = 0; i < bytes_ / size_of(element_); ++i) {
      uint32_t bits = 0;
      const bool wide = element_ == Element::float32;
      std::memcpy(reinterpret_cast<char*>(&bits) + (wide ? 0 : 2), data_ + i * size_of(element_), size_of(element_));
      float value;
      std::memcpy(&value, &bits, sizeof(value));
      if (std::isfinite(value)) continue;
      std::fprintf(stderr, "%s: element %lld of %s is %f\n", running.c_str(), static_cast<long long>(i), name_, value);
      std::exit(1);
    }
  }

  void* data() { return data_; }
  float* floats() { return reinterpret_cast<float*>(data_); }
  operator void*() { return data_; }
  operator float*() { return floats(); }

 private:
  const char* name_;
  Element element_;
  int64_t bytes_;
  char* data_;
};

// How an image lies in memory: channels innermost; channels innermost, with room between pixels, rows and images;
// channels outermost.
enum class Layout { channels_last, spread, nchw };

// An image batch whose block ends with its last element; what lies between elements is NaN.
class Image {
 public:
  Image(int64_t n, int64_t c, int64_t h, int64_t w, Element element, Layout layout)
      : batch_(strided(n, c, h, w, layout)), buffer_("x", extent(), element) {
    for (int64_t i = 0; i < n * c * h * w; ++i) {
      const int64_t channel = i % c, column = i / c % w, row = i / c / w % h, image = i / c / w / h;
      buffer_.set(image * batch_.image_stride + row * batch_.row_stride + column * batch_.pixel_stride +
                      channel * batch_.channel_stride,
                  random_number());
    }
    batch_.data = buffer_.data();
  }

  const ImageBatch& batch() const { return batch_; }

 private:
  static ImageBatch strided(int64_t n, int64_t c, int64_t h, int64_t w, Layout layout) {
    if (layout == Layout::nchw) return {nullptr, n, c, h, w, c * h * w, h * w, w, 1};
    const int64_t gap = layout == Layout::spread ? 3 : 0;
    const int64_t pixel = c + gap, row = w * pixel + gap;
    return {nullptr, n, c, h, w, h * row + gap, 1, row, pixel};
  }
  int64_t extent() const {
    return 1 + (batch_.batch - 1) * batch_.image_stride + (batch_.channels - 1) * batch_.channel_stride +
           (batch_.height - 1) * batch_.row_stride + (batch_.width - 1) * batch_.pixel_stride;
  }

  ImageBatch batch_;
  Buffer buffer_;
};

}  // namespace sanitize

namespace mobilevit_fast::cpu {

// Instead of csrc/cpu/scratch.cpp: a new block for every request, no larger than asked for and full of NaN.
void* thread_scratch(int64_t bytes) {
  static void* block = nullptr;
  std::free(block);
  if (posix_memalign(&block, 64, bytes - (sanitize::planted == "scratch" ? 64 : 0)) != 0) std::abort();
  std::memset(block, 0xff, bytes - (sanitize::planted == "scratch" ? 64 : 0));
  return block;
}

}  // namespace mobilevit_fast::cpu
