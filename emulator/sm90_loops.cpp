// The loops of sm90_loops.h, for the instructions that the CPU has.
#include "sm90_loops.h"

#include "halves.h"

namespace mobilevit_fast::emulator {

namespace {

#define MVF_INLINE __attribute__((always_inline)) inline

MVF_INLINE void add(float* sums, const float* left, const float* right, int n) {
  constexpr int kRows = 8;  // as many accumulators as registers hold
  for (int column = 0; column < n; column += 8) {
    for (int row = 0; row < 16; row += kRows) {
      Floats8 sum[kRows], line;
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) std::memcpy(&sum[i], sums + (row + i) * n + column, sizeof(line));
      for (int k = 0; k < 16; ++k) {
        std::memcpy(&line, right + k * n + column, sizeof(line));
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) sum[i] += left[(row + i) * 16 + k] * line;
      }
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) std::memcpy(sums + (row + i) * n + column, &sum[i], sizeof(line));
    }
  }
}

template <bool kBFloat16>
MVF_INLINE void widen(const char* from, float* to) {
  if (kBFloat16) {
    widen_bfloat16(from, to);
  } else {
    widen_halves(from, to);
  }
}
template <bool kBFloat16>
MVF_INLINE void read(const char* memory, const Operand& operand, int first, int rows, float* to) {
  const auto chunk = [&](int row, int depth) {
    return memory + operand.chunk(static_cast<uint32_t>(first + row), static_cast<uint32_t>(depth));
  };
  if (operand.transposed) {
    for (int depth = 0; depth < 16; ++depth) {
      for (int row = 0; row < rows; row += 8) widen<kBFloat16>(chunk(row, depth), to + depth * rows + row);
    }
    return;
  }
  for (int depth = 0; depth < 16; depth += 8) {
    for (int row = 0; row < rows; row += 8) {
      float eight[8][8];
      for (int i = 0; i < 8; ++i) widen<kBFloat16>(chunk(row + i, depth), eight[i]);
      for (int k = 0; k < 8; ++k) {
        for (int i = 0; i < 8; ++i) to[(depth + k) * rows + row + i] = eight[i][k];
      }
    }
  }
}
MVF_INLINE void read_any(const char* memory, const Operand& operand, int first, int rows, bool bfloat16, float* to) {
  if (bfloat16) {
    read<true>(memory, operand, first, rows, to);
  } else {
    read<false>(memory, operand, first, rows, to);
  }
}

#if defined(__x86_64__)
#define MVF_FAST __attribute__((target("avx2,fma")))
MVF_FAST void fast_add(float* sums, const float* left, const float* right, int n) { add(sums, left, right, n); }
MVF_FAST void fast_read(const char* memory, const Operand& operand, int first, int rows, bool bfloat16, float* to) {
  read_any(memory, operand, first, rows, bfloat16, to);
}
const bool is_fast = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
void fast_add(float*, const float*, const float*, int) {}
void fast_read(const char*, const Operand&, int, int, bool, float*) {}
constexpr bool is_fast = false;
#endif

}  // namespace

void add_product(float* sums, const float* left, const float* right, int n) {
  if (is_fast) return fast_add(sums, left, right, n);
  add(sums, left, right, n);
}
void read_operand(const char* memory, const Operand& operand, int first, int rows, bool bfloat16, float* to) {
  if (is_fast) return fast_read(memory, operand, first, rows, bfloat16, to);
  read_any(memory, operand, first, rows, bfloat16, to);
}

}  // namespace mobilevit_fast::emulator
