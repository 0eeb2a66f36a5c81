// float16 and bfloat16 in arithmetic of the host: quick, since kernels convert millions of them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace mobilevit_fast::emulator {

template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline float float_of_half(uint16_t half) {
  uint32_t bits = bits_as<uint32_t>(bits_as<float>(static_cast<uint32_t>(half & 0x7fff) << 13) * 0x1p112f);
  if ((half & 0x7c00) == 0x7c00) bits |= 0x7f800000;
  return bits_as<float>(bits | static_cast<uint32_t>(half & 0x8000) << 16);
}
inline float float_of_bfloat16(uint16_t number) { return bits_as<float>(static_cast<uint32_t>(number) << 16); }

// Rounded to nearest, ties to even.
inline uint16_t half_of_float(float value) {
  const uint32_t all = bits_as<uint32_t>(value), bits = all & 0x7fffffff;
  const uint16_t sign = static_cast<uint16_t>(all >> 16 & 0x8000);
  if (bits > 0x7f800000) return 0x7fff;
  if (bits >= 0x477ff000) return sign | 0x7c00;  // half a step beyond the largest number
  if (bits < 0x38800000) {                       // steps of 2^-24, as those of the numbers from 0.5 to 1
    return static_cast<uint16_t>(sign | (bits_as<uint32_t>(bits_as<float>(bits) + 0.5f) - 0x3f000000));
  }
  return static_cast<uint16_t>(sign | ((bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13));
}
inline uint16_t bfloat16_of_float(float value) {
  const uint32_t bits = bits_as<uint32_t>(value);
  if (std::isnan(value)) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
// Rounded once: to a float whose last bit says that there was more, and from there.
inline uint16_t half_of_double(double value) {
  float near = static_cast<float>(value);
  if (static_cast<double>(near) == value || std::isnan(value) || std::isinf(near)) return half_of_float(near);
  uint32_t bits = bits_as<uint32_t>(near);
  if (std::fabs(static_cast<double>(near)) > std::fabs(value)) --bits;
  return half_of_float(bits_as<float>(bits | 1));
}

// Eight numbers at once.
typedef float Floats8 __attribute__((vector_size(32)));
typedef uint32_t Words8 __attribute__((vector_size(32)));
typedef uint16_t Halves8 __attribute__((vector_size(16)));

__attribute__((always_inline)) inline void widen_halves(const void* from, float* to) {
  Halves8 halves;
  std::memcpy(&halves, from, sizeof(halves));
  const Words8 words = __builtin_convertvector(halves, Words8);
  const Words8 scaled = (Words8)((Floats8)((words & 0x7fff) << 13) * 0x1p112f);
  const Words8 special = (Words8)((words & 0x7c00) == 0x7c00) & 0x7f800000;
  const Words8 result = scaled | special | (words & 0x8000) << 16;
  std::memcpy(to, &result, sizeof(result));
}
__attribute__((always_inline)) inline void widen_bfloat16(const void* from, float* to) {
  Halves8 halves;
  std::memcpy(&halves, from, sizeof(halves));
  const Words8 words = __builtin_convertvector(halves, Words8) << 16;
  std::memcpy(to, &words, sizeof(words));
}

}  // namespace mobilevit_fast::emulator
