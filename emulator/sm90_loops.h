// Where wgmma finds a matrix in shared memory, and the loops that take nearly all of its time on the CPU.
#pragma once

#include "sm90_window.h"

namespace mobilevit_fast::emulator {

// A matrix in shared memory as its descriptor names it: how the bytes of rows (of A, or columns of B) and of depth lie.
struct Operand {
  uint32_t start, leading, stride, swizzle;
  bool transposed;

  static Operand of(uint64_t descriptor, bool transposed, const Place& place) {
    if ((descriptor >> 49 & 7) != 0) throw Error("wgmma: a descriptor with a base offset at " + place.text());
    return {static_cast<uint32_t>(descriptor & 0x3fff) << 4, static_cast<uint32_t>(descriptor >> 16 & 0x3fff) << 4,
            static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4, static_cast<uint32_t>(descriptor >> 62), transposed};
  }
  uint32_t width() const { return swizzle == 0 ? 16 : 256u >> swizzle; }
  // The address of 16 bytes: of a row, the elements 8 k8 and on of the depth; transposed, of a depth, those rows.
  uint32_t chunk(uint32_t row, uint32_t depth) const {
    const uint32_t w = width();
    uint32_t at = start;
    if (!transposed && swizzle == 0) {
      at += row / 8 * stride + depth / 8 * leading + row % 8 * 16;
    } else if (!transposed) {
      at += row / 8 * stride + row % 8 * w + depth * 2;
    } else if (swizzle == 0) {
      at += row / 8 * stride + depth / 8 * leading + depth % 8 * 16;
    } else {
      at += row / (w / 2) * leading + depth / 8 * stride + depth % 8 * w + row % (w / 2) * 2;
    }
    return swizzled(at, w);
  }
  // Bits 4 and on of an address are XORed with bits 7 and on, as far as the width goes.
  static uint32_t swizzled(uint32_t at, uint32_t width) { return at ^ ((at >> 7 & (width / 16 - 1)) << 4); }
};

// sums (16 x n) += left (16 x 16) right (16 x n)
void add_product(float* sums, const float* left, const float* right, int n);

// Depth by rows (16 x rows) of an operand as float32, its rows from `first` on. `memory` is where address 0 would be.
void read_operand(const char* memory, const Operand& operand, int first, int rows, bool bfloat16, float* to);

}  // namespace mobilevit_fast::emulator
