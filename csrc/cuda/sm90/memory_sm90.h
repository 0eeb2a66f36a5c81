// Shared and global memory of compute capability 9.0 by inline PTX: a part of device_sm90.h, which includes it.
#pragma once

#include "cuda/device.h"

namespace mobilevit_fast::cuda {

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
// Global memory that the kernel before this one wrote, after grid_wait(). load_global is for what nothing writes while
// this kernel or the one before it runs: the compiler may move it to before grid_wait(), and L1 may have older lines.
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

// The counterparts of load_matrix_at and load_matrix_transposed_at in device.h: four 8x8 matrices.
MVF_DEVICE void store_matrix_at(uint32_t row, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]), "r"(r[1]),
               "r"(r[2]), "r"(r[3])
               : "memory");
}
MVF_DEVICE void store_matrix_transposed_at(uint32_t row, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]),
               "r"(r[1]), "r"(r[2]), "r"(r[3])
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
// Nought. The compiler believes that it depends on the number, so that what is loaded from an address to which it is
// added is loaded once the number is there, and not kept in registers while it is computed.
MVF_DEVICE int zero_behind(float number) { return __float_as_int(number) == 0x7fc12345 ? 1 : 0; }

}  // namespace mobilevit_fast::cuda
