// What kernels use of the device beyond device.h, from compute capability 8.0 on: shared memory by 32-bit addresses,
// results of the kernel before, exchanges within a warp, pairs of float16 numbers. Inline PTX; with MVF_EMULATED the
// same names run on the CPU.
//
// Shared memory is one array of a block, and a place in it a 32-bit address. Kernels load and store it by the functions
// here alone, so that the emulator sees every access.
#pragma once

#include "device.h"

namespace mobilevit_fast::cuda {

// 8 bytes, of which a thread moves as many at once as it can.
struct alignas(8) Bytes8 {
  uint32_t word[2];
};

struct alignas(16) Float4 {
  float x, y, z, w;
};

}  // namespace mobilevit_fast::cuda

#if defined(MVF_EMULATED)

#include "emulated_barriers.h"
#include "emulated_halves.h"

#elif defined(__CUDACC__)

namespace mobilevit_fast::cuda {

// --- Warps -----------------------------------------------------------------------------------------------------------

MVF_DEVICE uint32_t shuffle(uint32_t value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
MVF_DEVICE float shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
MVF_DEVICE uint32_t shuffle_up(uint32_t value, int lanes) { return __shfl_up_sync(0xffffffffu, value, lanes); }
MVF_DEVICE uint32_t shuffle_down(uint32_t value, int lanes) { return __shfl_down_sync(0xffffffffu, value, lanes); }
MVF_DEVICE uint32_t shuffle_xor(uint32_t value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
// A number that is the same in all lanes, so that the compiler knows it.
MVF_DEVICE int warp_uniform(int value) { return __shfl_sync(0xffffffffu, value, 0); }

// --- Pairs of float16 numbers ----------------------------------------------------------------------------------------

MVF_DEVICE uint32_t fma_half2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
MVF_DEVICE uint32_t multiply_half2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
MVF_DEVICE uint32_t add_half2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
MVF_DEVICE uint32_t subtract_half2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
MVF_DEVICE uint32_t maximum_half2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("max.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
// 2^x with a relative error of 2^-9.9.
MVF_DEVICE uint32_t exp2_half2(uint32_t x) {
  uint32_t y;
  asm("ex2.approx.f16x2 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
// Four bytes of the eight in {high, low}, by the nibbles of `selector`: prmt.
MVF_DEVICE uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  return __byte_perm(low, high, selector);
}

// --- Products of a warp ----------------------------------------------------------------------------------------------

// d = a b and d += a b of m16n8k16 as multiply_matrix has it, but free to be moved; the accumulators of the first begin
// as zeros that take no register. The third adds a 16x8 by 8x8 product, m16n8k8, whose fragments are the first halves.
template <class T = Half>
MVF_DEVICE void begin_products(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <class T = Half>
MVF_DEVICE void add_products(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <class T = Half>
MVF_DEVICE void add_shallow_products(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b);

#define MVF_PRODUCTS(T, KIND)                                                                        \
  template <>                                                                                        \
  MVF_DEVICE void begin_products<T>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND                                       \
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "                                        \
        "{%10, %10, %10, %10};"                                                                      \
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                                             \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(0.0f));              \
  }                                                                                                  \
  template <>                                                                                        \
  MVF_DEVICE void add_products<T>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {   \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND                                       \
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "                                        \
        "{%0, %1, %2, %3};"                                                                          \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                             \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                         \
  }                                                                                                  \
  template <>                                                                                        \
  MVF_DEVICE void add_shallow_products<T>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b) {     \
    asm("mma.sync.aligned.m16n8k8.row.col.f32." KIND "." KIND                                        \
        ".f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "                                                    \
        "{%0, %1, %2, %3};"                                                                          \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                             \
        : "r"(a0), "r"(a1), "r"(b));                                                                 \
  }
MVF_PRODUCTS(Half, "f16")
MVF_PRODUCTS(BFloat16, "bf16")
#undef MVF_PRODUCTS

// --- Shared memory ---------------------------------------------------------------------------------------------------

// The first byte of the block's dynamic shared memory; kernels round it up to 1024 where a swizzle wants that.
MVF_DEVICE uint32_t shared_memory_begin() { return shared_address(shared_memory); }

// T: uint32_t, float, Float2, Float4, Bytes8, Bytes16, at a multiple of its size.
template <class T>
MVF_DEVICE T load_shared_at(uint32_t address);
// The same of data that nothing writes any more: the compiler may move these loads, out of loops as well, where it then
// keeps what they loaded.
template <class T>
MVF_DEVICE T load_shared_constant(uint32_t address);
// As load_written of device.h, of what is read once: past the multiprocessor's cache.
template <class T>
MVF_DEVICE T load_result(const T* source);

// All three of a type; OPERANDS are those of the instruction of this KIND, and the rest what they stand for.
#define MVF_LOADS(T, KIND, OPERANDS, ...)                                                       \
  template <>                                                                                   \
  MVF_DEVICE T load_shared_at(uint32_t address) {                                               \
    T v;                                                                                        \
    asm volatile("ld.shared." KIND " " OPERANDS ";" : __VA_ARGS__ : "r"(address) : "memory");   \
    return v;                                                                                   \
  }                                                                                             \
  template <>                                                                                   \
  MVF_DEVICE T load_shared_constant(uint32_t address) {                                         \
    T v;                                                                                        \
    asm("ld.shared." KIND " " OPERANDS ";" : __VA_ARGS__ : "r"(address));                       \
    return v;                                                                                   \
  }                                                                                             \
  template <>                                                                                   \
  MVF_DEVICE T load_result(const T* source) {                                                   \
    T v;                                                                                        \
    asm volatile("ld.global.cg." KIND " " OPERANDS ";" : __VA_ARGS__ : "l"(source) : "memory"); \
    return v;                                                                                   \
  }
MVF_LOADS(uint32_t, "b32", "%0, [%1]", "=r"(v))
MVF_LOADS(float, "f32", "%0, [%1]", "=f"(v))
MVF_LOADS(Float2, "v2.f32", "{%0, %1}, [%2]", "=f"(v.x), "=f"(v.y))
MVF_LOADS(Float4, "v4.f32", "{%0, %1, %2, %3}, [%4]", "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w))
MVF_LOADS(Bytes8, "v2.b32", "{%0, %1}, [%2]", "=r"(v.word[0]), "=r"(v.word[1]))
MVF_LOADS(Bytes16, "v4.b32", "{%0, %1, %2, %3}, [%4]", "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]),
          "=r"(v.word[3]))
#undef MVF_LOADS

MVF_DEVICE void store_shared_at(uint32_t address, uint32_t v) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(v) : "memory");
}
MVF_DEVICE void store_shared_at(uint32_t address, float v) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(v) : "memory");
}
MVF_DEVICE void store_shared_at(uint32_t address, Float2 v) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(v.x), "f"(v.y) : "memory");
}
MVF_DEVICE void store_shared_at(uint32_t address, Bytes8 v) {
  asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(address), "r"(v.word[0]), "r"(v.word[1]) : "memory");
}
MVF_DEVICE void store_shared_at(uint32_t address, Bytes16 v) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.word[0]), "r"(v.word[1]),
               "r"(v.word[2]), "r"(v.word[3])
               : "memory");
}

// A matrix of 8x8 elements of 16 bits that lies in a warp's registers, a word a lane, transposed.
MVF_DEVICE uint32_t transpose_matrix(uint32_t word) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(word));
  return out;
}
// load_matrix_at of data that nothing writes any more.
MVF_DEVICE void load_matrix_constant(uint32_t (&r)[4], uint32_t row) {
  asm("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
      : "r"(row));
}
// As copy_async of device.h; commit_async and wait_async serve both.
MVF_DEVICE void copy_async_at(uint32_t target, const void* source, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(there ? 16 : 0)
               : "memory");
}

// --- Global memory ---------------------------------------------------------------------------------------------------

template <>
MVF_DEVICE Bytes8 load_global(const Bytes8* source) {
  const uint2 v = __ldg(reinterpret_cast<const uint2*>(source));
  return {{v.x, v.y}};
}
template <>
MVF_DEVICE Float4 load_global(const Float4* source) {
  const float4 v = __ldg(reinterpret_cast<const float4*>(source));
  return {v.x, v.y, v.z, v.w};
}
// Results, as one instruction whatever the compiler takes them apart for.
MVF_DEVICE void store_global_whole(Bytes8* target, Bytes8 value) {
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(target), "r"(value.word[0]), "r"(value.word[1]) : "memory");
}
MVF_DEVICE void store_global_whole(Bytes16* target, Bytes16 value) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(target), "r"(value.word[0]), "r"(value.word[1]),
               "r"(value.word[2]), "r"(value.word[3])
               : "memory");
}
// A result that is too large for the caches, or whose reader comes much later: it is the first to leave them.
MVF_DEVICE void store_global_streaming(Bytes8* target, Bytes8 v) {
  __stcs(reinterpret_cast<uint2*>(target), make_uint2(v.word[0], v.word[1]));
}
// Brings the line of a result of the kernel before to the second-level cache.
MVF_DEVICE void prefetch_result(const void* source) { asm volatile("prefetch.global.L2 [%0];" ::"l"(source)); }
// Nought. The compiler believes that it depends on the number, so that what is loaded from an address to which it is
// added is loaded once the number is there, and not kept in registers while it is computed.
MVF_DEVICE int zero_behind(float number) { return __float_as_int(number) == 0x7fc12345 ? 1 : 0; }

}  // namespace mobilevit_fast::cuda

#endif
