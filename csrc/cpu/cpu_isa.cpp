#include "cpu_isa.h"

#include <atomic>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mobilevit_fast::cpu {
namespace {

constexpr const char* kIsaNames[] = {
#define MVF_NAME(isa) #isa,
    MVF_CPU_ISAS(MVF_NAME)
#undef MVF_NAME
};
constexpr int kIsaCount = sizeof(kIsaNames) / sizeof(kIsaNames[0]);

#if defined(__x86_64__)

// In the library of the tests the variants for AVX-512 are made of the instructions of avx2.
#if defined(MVF_EMULATE_ISAS)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

// Register file state that the operating system saves for us (XCR0); without it the instructions fault.
constexpr uint64_t kYmmState = 0x6, kZmmState = 0xe6, kTileState = 0x60000;

struct Cpuid {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Cpuid cpuid(uint32_t leaf, uint32_t subleaf) {
  Cpuid r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return Cpuid{};
  return r;
}

uint64_t saved_state() {
  constexpr uint32_t kOsxsave = 1u << 27;
  if ((cpuid(1, 0).ecx & kOsxsave) == 0) return 0;
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

struct FeatureList {
  static constexpr int kCount = 14;
  Feature features[kCount];

  FeatureList() {
    const Cpuid basic = cpuid(1, 0), extended = cpuid(7, 0), extended1 = cpuid(7, 1);
    const uint64_t state = saved_state();
    int next = 0;
    auto add = [&](const char* name, uint32_t reg, int bit, uint64_t needed_state) {
      features[next++] = {name, ((reg >> bit) & 1u) != 0 && (state & needed_state) == needed_state};
    };
    add("f16c", basic.ecx, 29, kYmmState);
    add("fma", basic.ecx, 12, kYmmState);
    add("avx2", extended.ebx, 5, kYmmState);
    add("avx_vnni", extended1.eax, 4, kYmmState);
    add("avx512f", extended.ebx, 16, kZmmState);
    add("avx512dq", extended.ebx, 17, kZmmState);
    add("avx512bw", extended.ebx, 30, kZmmState);
    add("avx512vl", extended.ebx, 31, kZmmState);
    add("avx512_vnni", extended.ecx, 11, kZmmState);
    add("avx512_bf16", extended1.eax, 5, kZmmState);
    add("avx512_fp16", extended.edx, 23, kZmmState);
    add("amx_tile", extended.edx, 24, kTileState);
    add("amx_bf16", extended.edx, 22, kTileState);
    add("amx_int8", extended.edx, 25, kTileState);
  }
};

const FeatureList& feature_list() {
  static const FeatureList list;
  return list;
}

bool has(const char* name) {
  for (const Feature& feature : feature_list().features) {
    if (__builtin_strcmp(feature.name, name) == 0) return feature.available;
  }
  return false;
}

// Linux saves the registers of the matrix unit for a process that has asked for it.
bool ask_for_tiles() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool tiles_allowed() {
  static const bool allowed = ask_for_tiles();
  return allowed;
}

// Whether vdpbf16ps multiplies faster than float32 multiply-adds do. On an Emerald Rapids (family 6, model 207) it does
// not: a core does 41 GMAC/s with it and 85 with vfmadd231ps. Other processors of Intel are taken to be alike.
bool pairs_are_fast() {
  constexpr uint32_t kIntel = 0x756e6547;  // "Genu"
  return cpuid(0, 0).ebx != kIntel;
}

#endif

bool isa_preferred(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512_bf16 && !kEmulated && !pairs_are_fast()) return false;
#endif
  return isa_available(isa);
}

Isa fastest_isa() {
  int isa = kIsaCount - 1;
  while (isa > 0 && !isa_preferred(static_cast<Isa>(isa))) --isa;
  return static_cast<Isa>(isa);
}

std::atomic<Isa>& chosen_isa() {
  static std::atomic<Isa> isa{fastest_isa()};
  return isa;
}

}  // namespace

const Feature* cpu_features(int* count) {
#if defined(__x86_64__)
  *count = FeatureList::kCount;
  return feature_list().features;
#else
  *count = 0;
  return nullptr;
#endif
}

int isa_count() { return kIsaCount; }

const char* isa_name(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

bool isa_available(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::portable:
      return true;
    case Isa::avx2:
      return has("avx2") && has("fma");
    case Isa::avx512:
      return isa_available(Isa::avx2) &&
             (kEmulated || (has("avx512f") && has("avx512dq") && has("avx512bw") && has("avx512vl")));
    case Isa::avx512_bf16:
      return isa_available(Isa::avx512) && (kEmulated || has("avx512_bf16"));
    case Isa::avx512_amx:
      return isa_available(Isa::avx512_bf16) && (kEmulated || (has("amx_tile") && has("amx_bf16") && tiles_allowed()));
  }
  return false;
#else
  return isa == Isa::portable;
#endif
}

Isa active_isa() { return chosen_isa().load(std::memory_order_relaxed); }

Isa product_isa(Isa active, [[maybe_unused]] bool bfloat16, [[maybe_unused]] bool even) {
#if defined(__x86_64__)
  if (word_factors(active) > 1 && !(bfloat16 && even)) return Isa::avx512;
#endif
  return active;
}

int word_factors([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512_bf16 || isa == Isa::avx512_amx) return 2;
#endif
  return 1;
}

bool multiplies_tiles([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512_amx) return true;
#endif
  return false;
}

bool set_active_isa(Isa isa) {
  if (!isa_available(isa)) return false;
  chosen_isa().store(isa, std::memory_order_relaxed);
  return true;
}

}  // namespace mobilevit_fast::cpu
