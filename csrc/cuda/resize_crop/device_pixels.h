// What kernels on uint8 images use of the device beyond cuda/device.h: words from any address on, bytes of words. With
// MVF_EMULATED the same names run on the CPU, as emulator/emulated_pixels.h defines them.
#pragma once

#include "cuda/device.h"

#if defined(MVF_EMULATED)

#include "emulated_pixels.h"

#elif defined(__CUDACC__)

namespace mobilevit_fast::cuda {

// The aligned word that holds a byte of an array. Memory is handed out by more than a word, so that it may be read
// whole where the array begins or ends in it.
MVF_DEVICE uint32_t load_word_around(const uint8_t* byte) {
  return load_written(reinterpret_cast<const uint32_t*>(byte - (reinterpret_cast<uintptr_t>(byte) & 3)));
}

// Byte i is that of (low, high) that the i-th digit of the selector, hexadecimal, names.
MVF_DEVICE uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  return __byte_perm(low, high, selector);
}

// The lower word of (low, high) moved to the right by fewer than 32 bits.
MVF_DEVICE uint32_t shift_right(uint32_t low, uint32_t high, uint32_t bits) { return __funnelshift_r(low, high, bits); }

}  // namespace mobilevit_fast::cuda

#endif
