// The loops of sm90_loops.h, for the instructions that the CPU has.
#include "sm90_loops.h"

#include "halves.h"

#if defined(__x86_64__)
#define MVF_FAST_CODE __attribute__((target_clones("avx2,fma", "default")))
#else
#define MVF_FAST_CODE
#endif

namespace mobilevit_fast::emulator {

MVF_FAST_CODE void add_product(float* sums, const float* left, const float* right, int n) {
  for (int column = 0; column < n; column += 8) {
    for (int row = 0; row < 16; row += 4) {
      Floats8 sum[4], line;
      for (int i = 0; i < 4; ++i) std::memcpy(&sum[i], sums + (row + i) * n + column, sizeof(line));
      for (int k = 0; k < 16; ++k) {
        std::memcpy(&line, right + k * n + column, sizeof(line));
        for (int i = 0; i < 4; ++i) sum[i] += left[(row + i) * 16 + k] * line;
      }
      for (int i = 0; i < 4; ++i) std::memcpy(sums + (row + i) * n + column, &sum[i], sizeof(line));
    }
  }
}

MVF_FAST_CODE void read_operand(const char* memory, const Operand& operand, int first, int rows, bool bfloat16,
                                float* to) {
  float eight[8];
  for (int depth = 0; depth < 16; depth += operand.transposed ? 1 : 8) {
    for (int row = 0; row < rows; row += operand.transposed ? 8 : 1) {
      const char* chunk = memory + operand.chunk(static_cast<uint32_t>(first + row), static_cast<uint32_t>(depth));
      if (bfloat16) {
        widen_bfloat16(chunk, eight);
      } else {
        widen_halves(chunk, eight);
      }
      if (operand.transposed) {
        std::memcpy(to + depth * rows + row, eight, sizeof(eight));
      } else {
        for (int k = 0; k < 8; ++k) to[(depth + k) * rows + row] = eight[k];
      }
    }
  }
}

}  // namespace mobilevit_fast::emulator
