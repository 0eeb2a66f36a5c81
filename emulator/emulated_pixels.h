// The emulated side of cuda/resize_crop/device_pixels.h.
#pragma once

#include "emulated_device.h"

namespace mobilevit_fast::cuda {

// Bytes of the word beside the array are there, but may be anything.
inline uint32_t load_word_around(const uint8_t* byte, MVF_PLACE) {
  const emulated::Array& array = block().touch_global(byte, 1, MVF_HERE);
  const uint8_t *begin = reinterpret_cast<const uint8_t*>(array.begin), *end = begin + array.bytes;
  const uint8_t* word = byte - (reinterpret_cast<uintptr_t>(byte) & 3);
  uint32_t value = 0xa5a5a5a5u;
  for (int i = 0; i < 4; ++i) {
    if (word + i >= begin && word + i < end) std::memcpy(reinterpret_cast<uint8_t*>(&value) + i, word + i, 1);
  }
  block().touch_global(byte, 1, MVF_HERE).read += 4;
  return value;
}

inline uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) result |= static_cast<uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return result;
}

inline uint32_t shift_right(uint32_t low, uint32_t high, uint32_t bits) {
  return static_cast<uint32_t>((static_cast<uint64_t>(high) << 32 | low) >> (bits & 31));
}

}  // namespace mobilevit_fast::cuda
