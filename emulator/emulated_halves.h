// Pairs of float16 elements and other arithmetic of cuda/addresses.h.
#pragma once

#include "emulated_shared.h"

namespace mobilevit_fast::cuda {

// Of both halves of words.
template <class Compute>
uint32_t by_halves(uint32_t a, uint32_t b, uint32_t c, const Compute& compute) {
  ++block().device.counts.instructions;
  const auto low = [](uint32_t word) { return emulated::float_of_half(static_cast<uint16_t>(word)); };
  const uint32_t first = compute(low(a), low(b), low(c));
  return first | static_cast<uint32_t>(compute(low(a >> 16), low(b >> 16), low(c >> 16))) << 16;
}
MVF_OUT_OF_LINE inline uint32_t fma_half2(uint32_t a, uint32_t b, uint32_t c) {
  return by_halves(a, b, c, [](float x, float y, float z) {  // exact but for the rounding to float16
    return emulated::half_of_double(static_cast<double>(x * y) + static_cast<double>(z));
  });
}
MVF_OUT_OF_LINE inline uint32_t multiply_half2(uint32_t a, uint32_t b) {
  return by_halves(a, b, 0, [](float x, float y, float) { return emulated::half_of_float(x * y); });
}
MVF_OUT_OF_LINE inline uint32_t add_half2(uint32_t a, uint32_t b) {
  return by_halves(a, b, 0, [](float x, float y, float) { return emulated::half_of_float(x + y); });
}
MVF_OUT_OF_LINE inline uint32_t subtract_half2(uint32_t a, uint32_t b) {
  return by_halves(a, b, 0, [](float x, float y, float) { return emulated::half_of_float(x - y); });
}
MVF_OUT_OF_LINE inline uint32_t maximum_half2(uint32_t a, uint32_t b) {
  return by_halves(a, b, 0, [](float x, float y, float) { return emulated::half_of_float(std::fmax(x, y)); });
}
MVF_OUT_OF_LINE inline uint32_t exp2_half2(uint32_t x) {
  block().device.counts.exponentials += 2;
  return by_halves(x, 0, 0, [](float v, float, float) {
    return emulated::half_of_float(with_bits(std::exp2(v), 10));  // the bound of the instruction is 2^-9.9
  });
}
inline uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  ++block().device.counts.instructions;
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  uint32_t result = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t nibble = selector >> 4 * i & 0xf;
    if (nibble > 7)
      throw emulated::Error("permute_bytes: expected a selector of 0 to 7, got " + std::to_string(nibble));
    result |= static_cast<uint32_t>(bytes >> 8 * nibble & 0xff) << 8 * i;
  }
  return result;
}

inline int zero_behind(float) { return 0; }
inline void prefetch_result(const void*) {}

template <class T>
T load_result(const T* source, MVF_PLACE) {
  return load_written(source, file, line);
}
template <class T>
void store_global_whole(T* target, T value, MVF_PLACE) {
  store_global(target, value, file, line);
}
template <class T>
void store_global_streaming(T* target, T value, MVF_PLACE) {
  store_global(target, value, file, line);
}

template <class T = Half>
void begin_products(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], MVF_PLACE) {
  for (float& sum : d) sum = 0;
  multiply_matrix<T>(d, a, b, file, line);
}
template <class T = Half>
void add_products(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], MVF_PLACE) {
  multiply_matrix<T>(d, a, b, file, line);
}
template <class T = Half>
void add_shallow_products(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b, MVF_PLACE) {
  multiply_matrix<T>(d, {a0, a1, 0, 0}, {b, 0}, file, line);
}

}  // namespace mobilevit_fast::cuda
