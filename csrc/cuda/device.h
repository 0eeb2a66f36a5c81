// All that a CUDA kernel uses of the device. Compiled by nvcc it is intrinsics and inline PTX (compute capability 8.0
// and later); with MVF_EMULATED the same names run on the CPU, as emulator/emulated_device.h defines them.
//
// A kernel is a class with `Params`, `run(params)` for every thread, `blocks(params)`, `kThreads`,
// `shared_bytes(params)` and `arrays(params, visit)`, which names every global array and its bytes. Shared arrays are
// taken one after the other from `SharedMemory`, by all threads alike.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mobilevit_fast::cuda {

// float16 and bfloat16 as their bits.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// 16 bytes, of which a thread moves as many at once as it can.
struct alignas(16) Bytes16 {
  uint32_t word[4];
};

struct alignas(8) Float2 {
  float x, y;
};

constexpr int kWarpSize = 32;
constexpr size_t kSharedAlignment = 128;

}  // namespace mobilevit_fast::cuda

#if defined(MVF_EMULATED)

#include "emulated_device.h"

#elif !defined(__CUDACC__)

#define MVF_HOST_DEVICE inline

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define MVF_DEVICE __device__ __forceinline__
#define MVF_HOST_DEVICE __host__ __device__ __forceinline__
#define MVF_UNROLL _Pragma("unroll")
#define MVF_UNROLL_SOME _Pragma("unroll 4")
#define MVF_NO_UNROLL _Pragma("unroll 1")

namespace mobilevit_fast::cuda {

MVF_DEVICE int thread_index() { return threadIdx.x; }
MVF_DEVICE int block_index() { return blockIdx.x; }

MVF_DEVICE void sync_block() { __syncthreads(); }
MVF_DEVICE void sync_warp() { __syncwarp(); }
MVF_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
// Whether it holds for any lane of the warp.
MVF_DEVICE bool any_lane(bool holds) { return __any_sync(0xffffffffu, holds) != 0; }

// Until the kernel before has ended and its results are there, where this one was started dependently: every thread
// that reads global memory other than packed weights, or writes any, comes behind it. Before compute capability 9.0 no
// kernel is.
MVF_DEVICE void grid_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may begin where there is room.
MVF_DEVICE void grid_launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

extern __shared__ __align__(128) unsigned char shared_memory[];

class SharedMemory {
 public:
  template <class T>
  MVF_DEVICE T* take(int count) {
    T* array = reinterpret_cast<T*>(shared_memory + used_);
    used_ += (count * sizeof(T) + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
    return array;
  }

 private:
  size_t used_ = 0;
};

MVF_DEVICE uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Global memory that nothing writes while this kernel or the one before it runs: packed weights. The compiler may move
// these loads to before grid_wait(), and a multiprocessor's cache may have older lines.
template <class T>
MVF_DEVICE T load_global(const T* source) {
  return __ldg(source);
}
template <>
MVF_DEVICE Half load_global(const Half* source) {
  return {__ldg(&source->bits)};
}
template <>
MVF_DEVICE BFloat16 load_global(const BFloat16* source) {
  return {__ldg(&source->bits)};
}
template <>
MVF_DEVICE Float2 load_global(const Float2* source) {
  const float2 v = __ldg(reinterpret_cast<const float2*>(source));
  return {v.x, v.y};
}
template <>
MVF_DEVICE Bytes16 load_global(const Bytes16* source) {
  const uint4 v = __ldg(reinterpret_cast<const uint4*>(source));
  return {{v.x, v.y, v.z, v.w}};
}
// What kernels before this one may have written, behind grid_wait(), and results.
template <class T>
MVF_DEVICE T load_written(const T* source) {
  return *source;
}
template <>
MVF_DEVICE Bytes16 load_written(const Bytes16* source) {
  const uint4 v = *reinterpret_cast<const uint4*>(source);
  return {{v.x, v.y, v.z, v.w}};
}
template <class T>
MVF_DEVICE void store_global(T* target, T value) {
  *target = value;
}
MVF_DEVICE void store_global(Bytes16* target, Bytes16 value) {
  *reinterpret_cast<uint4*>(target) = make_uint4(value.word[0], value.word[1], value.word[2], value.word[3]);
}

template <class T>
MVF_DEVICE T load_shared(const T* source) {
  return *source;
}
template <class T>
MVF_DEVICE void store_shared(T* target, T value) {
  *target = value;
}

// 16 bytes from global to shared memory, zeros where `there` is false. They are in place after commit_async, and
// wait_async of all but the last kPending commits of the thread; other threads see them behind a barrier.
MVF_DEVICE void copy_async(void* target, const void* source, bool there) {
  const int bytes = there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(target)), "l"(source), "r"(bytes)
               : "memory");
}
MVF_DEVICE void commit_async() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
MVF_DEVICE void wait_async() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8. Lane i receives of every
// matrix the elements 2 (i % 4) and on of row i / 4, or, transposed, of column i / 4.
MVF_DEVICE void load_matrix_at(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
MVF_DEVICE void load_matrix_transposed_at(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
MVF_DEVICE void load_matrix(uint32_t (&r)[4], const void* row) { load_matrix_at(r, shared_address(row)); }
MVF_DEVICE void load_matrix_transposed(uint32_t (&r)[4], const void* row) {
  load_matrix_transposed_at(r, shared_address(row));
}

// d += a · b: 16x16 by 16x8 elements, in fragments of PTX's m16n8k16.
template <class T>
MVF_DEVICE void multiply_matrix(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
MVF_DEVICE void multiply_matrix<Half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
MVF_DEVICE void multiply_matrix<BFloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

MVF_DEVICE float to_float(float value) { return value; }
MVF_DEVICE float to_float(Half value) { return __half2float(__ushort_as_half(value.bits)); }
MVF_DEVICE float to_float(BFloat16 value) { return __bfloat162float(__ushort_as_bfloat16(value.bits)); }

// Rounded to nearest, ties to even.
template <class T>
MVF_DEVICE T from_float(float value);
template <>
MVF_DEVICE Half from_float<Half>(float value) {
  return {__half_as_ushort(__float2half_rn(value))};
}
template <>
MVF_DEVICE BFloat16 from_float<BFloat16>(float value) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
}
template <>
MVF_DEVICE float from_float<float>(float value) {
  return value;
}

// Two elements in a word, the first in its lower half.
template <class T>
MVF_DEVICE Float2 unpack(uint32_t word) {
  return {to_float(T{static_cast<uint16_t>(word)}), to_float(T{static_cast<uint16_t>(word >> 16)})};
}
template <class T>
MVF_DEVICE uint32_t pack(float x, float y);
template <>
MVF_DEVICE uint32_t pack<Half>(float x, float y) {
  const __half2 pair = __floats2half2_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
template <>
MVF_DEVICE uint32_t pack<BFloat16>(float x, float y) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// 2^x and 1 / x, as the special-function unit has them: relative errors of 2^-22 and 2^-23.
MVF_DEVICE float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
MVF_DEVICE float reciprocal_approximate(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 1 / sqrt(x) with a relative error of 2^-22.
MVF_DEVICE float reciprocal_root(float x) { return rsqrtf(x); }
// The larger of two numbers, or the one that is a number.
MVF_DEVICE float maximum(float x, float y) { return fmaxf(x, y); }
// tanh with a relative error of 2^-11.
MVF_DEVICE float tanh_approximate(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace mobilevit_fast::cuda

#endif
