"""Writes wgmma.h: the operand lists of wgmma m64nNk16, which C++ has no way to make."""

from __future__ import annotations

from pathlib import Path

SIZES = (8, 16, 24, 32, 40, 48, 64, 72, 80, 96, 120, 128, 144, 160, 192, 240, 256)

HEAD = r"""// clang-format off
// Made by generate_wgmma.py. wgmma m64nNk16, 16-bit factors, sums in float32: d += A B, or d = A B where `add` is 0.
// Wgmma<T, N>::ss takes A from shared memory, ::rs from registers in the layout of fragments. kTransA, kTransB: the
// matrix lies with M or N innermost. Sums: of lane 4 g + t of warp w, d[4 j + 2 h + e] is row 16 w + 8 h + g, column
// 8 j + 2 t + e.
#pragma once

#include "device_sm90.h"

#if defined(__CUDACC__) && !defined(MVF_EMULATED)

namespace mobilevit_fast::cuda {

template <class T, int kN>
struct Wgmma;

// O0 to O6: the numbers of the operands after the sums. The rest: the sums as operands.
#define MVF_WGMMA(T, PTX, N, O0, O1, O2, O3, O4, O5, O6, NAMES, ...)                                                  \
  template <>                                                                                                        \
  struct Wgmma<T, N> {                                                                                               \
    template <int kTransA = 0, int kTransB = 0>                                                                      \
    static MVF_DEVICE void ss(float (&d)[N / 2], uint64_t a, uint64_t b, int add) {                                  \
      asm volatile("{.reg .pred p;\nsetp.ne.b32 p, %" #O2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32."    \
                   PTX "." PTX " {" NAMES "}, %" #O0 ", %" #O1 ", p, 1, 1, %" #O3 ", %" #O4 ";\n}"                   \
                   : __VA_ARGS__ : "l"(a), "l"(b), "r"(add), "n"(kTransA), "n"(kTransB));                            \
    }                                                                                                                \
    template <int kTransB = 0>                                                                                       \
    static MVF_DEVICE void rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int add) {                      \
      asm volatile("{.reg .pred p;\nsetp.ne.b32 p, %" #O5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32."    \
                   PTX "." PTX " {" NAMES "}, {%" #O0 ", %" #O1 ", %" #O2 ", %" #O3 "}, %" #O4 ", p, 1, 1, %" #O6    \
                   ";\n}" : __VA_ARGS__                                                                              \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kTransB));                    \
    }                                                                                                                \
  };
"""


def _wrapped(items: list[str], per_line: int) -> list[str]:
    return [", ".join(items[k : k + per_line]) for k in range(0, len(items), per_line)]


def text() -> str:
    """The header."""
    out = [HEAD]
    for n in SIZES:
        count = n // 2
        names = _wrapped([f"%{i}" for i in range(count)], 20)
        sums = _wrapped([f'"+f"(d[{i}])' for i in range(count)], 8)
        quoted = " \\\n".join(f'  "{line}{", " if k + 1 < len(names) else ""}"' for k, line in enumerate(names))
        out.append(f"#define MVF_NAMES \\\n{quoted}")
        out.append("#define MVF_SUMS \\\n  " + ", \\\n  ".join(sums))
        others = ", ".join(str(count + i) for i in range(7))
        for kind, ptx in (("Half", "f16"), ("BFloat16", "bf16")):
            out.append(f'MVF_WGMMA({kind}, "{ptx}", {n}, {others}, MVF_NAMES, MVF_SUMS)')
        out.append("#undef MVF_NAMES\n#undef MVF_SUMS\n")
    out.append("#undef MVF_WGMMA\n\n}  // namespace mobilevit_fast::cuda\n\n#endif")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "wgmma.h").write_text(text())
