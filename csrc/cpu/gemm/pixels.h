// Rows of images as pixels of another type, and a kernel's working memory cut into arrays.
#pragma once

#include "common/image.h"
#include "cpu/scratch.h"
#include "factors.h"
#include "gemm_layout.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

MVF_INLINE float to_float(float value) { return value; }
MVF_INLINE float to_float(BFloat16 value) {
  const uint32_t bits = (uint32_t)value.bits << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

MVF_INLINE void assign(float& target, float value) { target = value; }
MVF_INLINE void assign(BFloat16& target, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  target.bits = (uint16_t)(value != value ? (bits >> 16) | 0x40u : nearest);
}

// `count` pixels of `channels` channels, any strides, to pixels of type U that are `target_stride` apart.
template <class T, class U>
void copy_pixels(const T* x, int64_t pixel_stride, int64_t channel_stride, int64_t count, int64_t channels, U* target,
                 int64_t target_stride) {
  if (channel_stride != 1) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < count; ++i) {
        assign(target[i * target_stride + c], to_float(x[i * pixel_stride + c * channel_stride]));
      }
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i, x += pixel_stride, target += target_stride) {
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) store_vector(target + c, load_as_float(x + c));
    for (; c < channels; ++c) assign(target[c], to_float(x[c]));
  }
}

template <class U>
MVF_INLINE void fill_zero(U* target, int64_t count) {
  std::memset(target, 0, count * sizeof(U));
}

// Arrays one after another in a block of memory, each on a cache line of its own; without a block, only their size.
class Arena {
 public:
  explicit Arena(void* block) : block_((char*)block) {}

  // For as many numbers as the product of `sizes`.
  template <class T, class... Sizes>
  T* take(Sizes... sizes) {
    T* result = block_ == nullptr ? nullptr : (T*)(block_ + bytes_);
    bytes_ = sum_of(bytes_, round_up(product_of((int64_t)sizeof(T), (int64_t)sizes...), 64));
    return result;
  }

  int64_t bytes() const { return bytes_; }

 private:
  char* block_;
  int64_t bytes_ = 0;
};

}  // namespace
}  // namespace mobilevit_fast::cpu::MVF_ISA
