// Instruction sets of this machine, and which variant of the CPU kernels runs.
//
// Every CPU kernel source is compiled once per instruction set into its own namespace, so one binary runs on any
// machine of its architecture: MVF_CPU_ISAS lists the variants, weakest first. avx512_bf16 is avx512 with matrix
// products on pairs of bfloat16, avx512_amx computes these in tiles of a matrix unit; kernels without such products are
// those of avx512 by MVF_CPU_SAME_WITHOUT_PAIRS.
#pragma once

#if defined(__x86_64__)
#define MVF_CPU_ISAS_WITHOUT_PAIRS(X) X(portable) X(avx2) X(avx512)
#define MVF_CPU_ISAS_WITH_TILES(X) X(avx512_amx)
#define MVF_CPU_ISAS(X) MVF_CPU_ISAS_WITHOUT_PAIRS(X) X(avx512_bf16) MVF_CPU_ISAS_WITH_TILES(X)
#define MVF_CPU_SAME_WITHOUT_TILES(function) \
  namespace avx512_bf16 {                    \
  using avx512::function;                    \
  }
#define MVF_CPU_SAME_WITHOUT_PAIRS(function) \
  MVF_CPU_SAME_WITHOUT_TILES(function)       \
  namespace avx512_amx {                     \
  using avx512::function;                    \
  }
#else
#define MVF_CPU_ISAS_WITHOUT_PAIRS(X) X(portable)
#define MVF_CPU_ISAS_WITH_TILES(X)
#define MVF_CPU_ISAS(X) MVF_CPU_ISAS_WITHOUT_PAIRS(X)
#define MVF_CPU_SAME_WITHOUT_TILES(function)
#define MVF_CPU_SAME_WITHOUT_PAIRS(function)
#endif

#define MVF_EXPORT __attribute__((visibility("default")))

namespace mobilevit_fast::cpu {

enum class Isa : int {
#define MVF_ENUMERATOR(isa) isa,
  MVF_CPU_ISAS(MVF_ENUMERATOR)
#undef MVF_ENUMERATOR
};

// One instruction set extension and whether both the processor and the operating system offer it.
struct Feature {
  const char* name;
  bool available;
};

// The extensions of interest on this architecture; `count` receives their number. The array is static.
MVF_EXPORT const Feature* cpu_features(int* count);

MVF_EXPORT int isa_count();
MVF_EXPORT const char* isa_name(Isa isa);
// Whether this machine runs a variant. Asked about avx512_amx where the processor has AMX, it has Linux lend the
// registers of the matrix unit to this process from then on; where Linux refuses, the variant is not available.
MVF_EXPORT bool isa_available(Isa isa);

// The variant that kernels use: the fastest available one unless `set_active_isa` chose another. That is the last of
// the list, but for avx512_bf16 on processors whose float32 multiply-adds are faster than their products in pairs.
MVF_EXPORT Isa active_isa();

// The variant whose kernels multiply matrices of bfloat16, or else float32, where the active one is `active`: pairs are
// for bfloat16 alone, and for sums of an even number of MACs. Weights are packed for this variant.
MVF_EXPORT Isa product_isa(Isa active, bool bfloat16, bool even);

// Whether a variant multiplies in tiles.
MVF_EXPORT bool multiplies_tiles(Isa isa);

// Factors in one 32-bit word of the weights packed for a variant (gemm_layout.h): 1, or 2 where they are pairs.
MVF_EXPORT int word_factors(Isa isa);

// Chooses the variant for all later calls of this process. Returns false, changing nothing, if it is not available.
MVF_EXPORT bool set_active_isa(Isa isa);

}  // namespace mobilevit_fast::cpu
