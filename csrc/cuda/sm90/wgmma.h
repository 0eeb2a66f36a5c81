// wgmma m64nNk16, 16-bit factors, sums in float32: d += A B, or d = A B where `add` is 0. Wgmma<T, N>::ss takes A from
// shared memory, ::rs from registers in the layout of fragments. kTransA, kTransB: the matrix lies with M or N
// innermost. Sums: of lane 4 g + t of warp w, d[4 j + 2 h + e] is row 16 w + 8 h + g, column 8 j + 2 t + e.
#pragma once

#include "device_sm90.h"

#if defined(__CUDACC__) && !defined(MVF_EMULATED)

namespace mobilevit_fast::cuda {

template <class T, int kN>
struct Wgmma;

// clang-format off
// PTX wants the N / 2 sums by name. Their numbers, each list the one before it and more:
#define MVF_NAMES_8 "%0, %1, %2, %3"
#define MVF_NAMES_16 MVF_NAMES_8 ", %4, %5, %6, %7"
#define MVF_NAMES_24 MVF_NAMES_16 ", %8, %9, %10, %11"
#define MVF_NAMES_32 MVF_NAMES_24 ", %12, %13, %14, %15"
#define MVF_NAMES_40 MVF_NAMES_32 ", %16, %17, %18, %19"
#define MVF_NAMES_48 MVF_NAMES_40 ", %20, %21, %22, %23"
#define MVF_NAMES_64 MVF_NAMES_48 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define MVF_NAMES_72 MVF_NAMES_64 ", %32, %33, %34, %35"
#define MVF_NAMES_80 MVF_NAMES_72 ", %36, %37, %38, %39"
#define MVF_NAMES_96 MVF_NAMES_80 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define MVF_NAMES_120 MVF_NAMES_96 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59"
#define MVF_NAMES_128 MVF_NAMES_120 ", %60, %61, %62, %63"
#define MVF_NAMES_144 MVF_NAMES_128 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define MVF_NAMES_160 MVF_NAMES_144 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define MVF_NAMES_192 MVF_NAMES_160 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define MVF_NAMES_240 MVF_NAMES_192 \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", %112, %113, %114, %115, %116, %117, %118, %119"
#define MVF_NAMES_256 MVF_NAMES_240 ", %120, %121, %122, %123, %124, %125, %126, %127"

// And they themselves, those of so many columns from the i-th sum on.
#define MVF_SUMS_8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define MVF_SUMS_16(i) MVF_SUMS_8(i), MVF_SUMS_8(i + 4)
#define MVF_SUMS_32(i) MVF_SUMS_16(i), MVF_SUMS_16(i + 8)
#define MVF_SUMS_64(i) MVF_SUMS_32(i), MVF_SUMS_32(i + 16)
#define MVF_SUMS_128(i) MVF_SUMS_64(i), MVF_SUMS_64(i + 32)

// O0 to O6: the numbers of the operands after the sums, N / 2 and on. The rest: the sums.
#define MVF_WGMMA_OF(T, PTX, N, O0, O1, O2, O3, O4, O5, O6, ...) \
  template <> \
  struct Wgmma<T, N> { \
    template <int kTransA = 0, int kTransB = 0> \
    static MVF_DEVICE void ss(float (&d)[N / 2], uint64_t a, uint64_t b, int add) { \
      asm volatile("{.reg .pred p;\nsetp.ne.b32 p, %" #O2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." \
                   PTX "." PTX " {" MVF_NAMES_##N "}, %" #O0 ", %" #O1 ", p, 1, 1, %" #O3 ", %" #O4 ";\n}" \
                   : __VA_ARGS__ : "l"(a), "l"(b), "r"(add), "n"(kTransA), "n"(kTransB)); \
    } \
    template <int kTransB = 0> \
    static MVF_DEVICE void rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int add) { \
      asm volatile("{.reg .pred p;\nsetp.ne.b32 p, %" #O5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." \
                   PTX "." PTX " {" MVF_NAMES_##N "}, {%" #O0 ", %" #O1 ", %" #O2 ", %" #O3 "}, %" #O4 ", p, 1, 1, %" \
                   #O6 ";\n}" : __VA_ARGS__ \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kTransB)); \
    } \
  };
#define MVF_WGMMA(...) \
  MVF_WGMMA_OF(Half, "f16", __VA_ARGS__) \
  MVF_WGMMA_OF(BFloat16, "bf16", __VA_ARGS__)

MVF_WGMMA(8, 4, 5, 6, 7, 8, 9, 10, MVF_SUMS_8(0))
MVF_WGMMA(16, 8, 9, 10, 11, 12, 13, 14, MVF_SUMS_16(0))
MVF_WGMMA(24, 12, 13, 14, 15, 16, 17, 18, MVF_SUMS_16(0), MVF_SUMS_8(8))
MVF_WGMMA(32, 16, 17, 18, 19, 20, 21, 22, MVF_SUMS_32(0))
MVF_WGMMA(40, 20, 21, 22, 23, 24, 25, 26, MVF_SUMS_32(0), MVF_SUMS_8(16))
MVF_WGMMA(48, 24, 25, 26, 27, 28, 29, 30, MVF_SUMS_32(0), MVF_SUMS_16(16))
MVF_WGMMA(64, 32, 33, 34, 35, 36, 37, 38, MVF_SUMS_64(0))
MVF_WGMMA(72, 36, 37, 38, 39, 40, 41, 42, MVF_SUMS_64(0), MVF_SUMS_8(32))
MVF_WGMMA(80, 40, 41, 42, 43, 44, 45, 46, MVF_SUMS_64(0), MVF_SUMS_16(32))
MVF_WGMMA(96, 48, 49, 50, 51, 52, 53, 54, MVF_SUMS_64(0), MVF_SUMS_32(32))
MVF_WGMMA(120, 60, 61, 62, 63, 64, 65, 66, MVF_SUMS_64(0), MVF_SUMS_32(32), MVF_SUMS_16(48), MVF_SUMS_8(56))
MVF_WGMMA(128, 64, 65, 66, 67, 68, 69, 70, MVF_SUMS_128(0))
MVF_WGMMA(144, 72, 73, 74, 75, 76, 77, 78, MVF_SUMS_128(0), MVF_SUMS_16(64))
MVF_WGMMA(160, 80, 81, 82, 83, 84, 85, 86, MVF_SUMS_128(0), MVF_SUMS_32(64))
MVF_WGMMA(192, 96, 97, 98, 99, 100, 101, 102, MVF_SUMS_128(0), MVF_SUMS_64(64))
MVF_WGMMA(240, 120, 121, 122, 123, 124, 125, 126, MVF_SUMS_128(0), MVF_SUMS_64(64), MVF_SUMS_32(96), MVF_SUMS_16(112))
MVF_WGMMA(256, 128, 129, 130, 131, 132, 133, 134, MVF_SUMS_128(0), MVF_SUMS_128(64))
// clang-format on

#undef MVF_WGMMA
#undef MVF_WGMMA_OF

}  // namespace mobilevit_fast::cuda

#endif
