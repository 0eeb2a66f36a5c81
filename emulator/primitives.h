// Small kernels that each use one thing of the device, for the emulator's own tests; some are wrong on purpose.
#pragma once

#include "cuda/device.h"

namespace mobilevit_fast::cuda {

// Fragments in, fragments out: lane by lane.
template <class T>
void multiply_fragments(const uint32_t* a, const uint32_t* b, float* d) {
  const int lane = thread_index();
  uint32_t left[4], right[2];
  float sum[4];
  for (int i = 0; i < 4; ++i) left[i] = a[lane * 4 + i], sum[i] = d[lane * 4 + i];
  for (int i = 0; i < 2; ++i) right[i] = b[lane * 2 + i];
  multiply_matrix<T>(sum, left, right);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = sum[i];
}

// Four 8x8 matrices (rows of 16 bytes, one after the other) to fragments.
inline void load_fragments(const Bytes16* rows, uint32_t* fragments, bool transposed) {
  SharedMemory shared;
  Bytes16* copy = shared.take<Bytes16>(32);
  const int lane = thread_index();
  store_shared(copy + lane, load_written(rows + lane));
  sync_warp();
  uint32_t r[4];
  if (transposed) {
    load_matrix_transposed(r, copy + lane);
  } else {
    load_matrix(r, copy + lane);
  }
  for (int i = 0; i < 4; ++i) fragments[lane * 4 + i] = r[i];
}

inline void exchange(float* values, int mask) { values[thread_index()] = shuffle_xor(values[thread_index()], mask); }

// x becomes 1 / sqrt(x), y the larger one of both.
inline void combine(float* x, float* y) {
  const int i = thread_index();
  const float root = reciprocal_root(x[i]);
  y[i] = maximum(x[i], y[i]), x[i] = root;
}

// x becomes tanh(x), y 2^x, z 1 / x.
inline void approximate(float* x, float* y, float* z) {
  const int i = thread_index();
  const float number = x[i];
  x[i] = tanh_approximate(number), y[i] = exp2_approximate(number), z[i] = reciprocal_approximate(number);
}

// 32 lanes read elements `stride` apart from global memory.
inline void read_sectors(const float* x, float* y, int stride) {
  y[thread_index()] = load_written(x + thread_index() * stride);
}

// Every thread passes its number to the next one through shared memory.
inline void pass_on(float* y, int threads, bool with_barrier) {
  SharedMemory shared;
  float* numbers = shared.take<float>(threads);
  const int thread = thread_index();
  store_shared(numbers + thread, static_cast<float>(thread));
  if (with_barrier) sync_block();
  store_global(y + thread, load_shared(numbers + (thread + 1) % threads));
}

// Two stages of copies, of which the first is read while the second is under way.
inline void copy_stages(const Bytes16* x, Bytes16* y, int threads, bool with_wait) {
  SharedMemory shared;
  Bytes16* stages = shared.take<Bytes16>(2 * threads);
  const int thread = thread_index();
  for (int stage = 0; stage < 2; ++stage) {
    copy_async(stages + stage * threads + thread, x + stage * threads + thread, thread % 4 != 3);
    commit_async();
  }
  if (with_wait) wait_async<1>();
  store_global(y + thread, load_shared(stages + thread));
  wait_async<0>();
  store_global(y + threads + thread, load_shared(stages + threads + thread));
}

enum class Fault {
  none,
  barrier_missed,
  barriers_of_two_lines,
  lane_missing,
  moved_load,
  shared_overflow,
  global_overflow,
  too_large
};

// Static, since AddressSanitizer knows no lines of functions that objects share.
static void go_wrong(Fault fault, float* y) {
  SharedMemory shared;
  float* numbers = shared.take<float>(fault == Fault::too_large ? 1 << 20 : 64);
  const int thread = thread_index();
  if (fault == Fault::barrier_missed && thread == 5) return;
  if (fault == Fault::barriers_of_two_lines && thread % 2 == 1) {
    sync_block();
  } else {
    sync_block();
  }
  if (fault == Fault::lane_missing && thread == 40) return;
  if (fault == Fault::moved_load) load_global(y + thread);
  const float sum = shuffle_xor(static_cast<float>(thread), 1);
  numbers[fault == Fault::shared_overflow ? thread + 1 : thread] = sum;
  store_global(y + (fault == Fault::global_overflow ? thread + 1 : thread), sum);
}

// 32 lanes read words `stride` apart.
inline void read_banks(float* y, int stride) {
  SharedMemory shared;
  float* words = shared.take<float>(32 * 32);
  for (int i = 0; i < 32; ++i) words[thread_index() * 32 + i] = 0;
  y[thread_index()] = load_shared(words + thread_index() * stride);
}

}  // namespace mobilevit_fast::cuda
