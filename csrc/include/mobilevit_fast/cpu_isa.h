// Instruction sets of this machine, and which variant of the CPU kernels runs.
//
// Every CPU kernel source is compiled once per instruction set into its own namespace, so one binary runs on any
// machine of its architecture: MVF_CPU_ISAS lists the variants, weakest first.
#pragma once

#if defined(__x86_64__)
#define MVF_CPU_ISAS(X) X(portable) X(avx2) X(avx512)
#else
#define MVF_CPU_ISAS(X) X(portable)
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
MVF_EXPORT bool isa_available(Isa isa);

// The variant that kernels use: the strongest available one unless `set_active_isa` chose another.
MVF_EXPORT Isa active_isa();

// Chooses the variant for all later calls of this process. Returns false, changing nothing, if it is not available.
MVF_EXPORT bool set_active_isa(Isa isa);

}  // namespace mobilevit_fast::cpu
