// Small kernels for compute capability 9.0 that each use one thing of the device: the emulator's own tests run them,
// and those on a GPU, with the same expectations.
#pragma once

#include "cuda/sm90/launch_sm90.h"
#include "cuda/sm90/wgmma.h"

namespace mobilevit_fast::cuda {

// What all of them are: one block of a warpgroup, with two global arrays.
struct Primitive {
  static constexpr int kThreads = 128, kCluster = 1, kRegisters = 0;

  template <class Params>
  static unsigned blocks(const Params&) {
    return 1;
  }
  template <class Params>
  static size_t shared_bytes(const Params&) {
    return 66 << 10;
  }
  template <class Params, class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    visit("from", p.from, p.from_bytes);
    visit("to", p.to, p.to_bytes);
  }
};
struct Arrays {
  const void* from;
  void* to;
  int64_t from_bytes, to_bytes;
};

MVF_DEVICE uint32_t aligned_begin() { return (shared_memory_begin() + 1023) / 1024 * 1024; }

// Which bytes of shared memory a descriptor reads: these hold their own numbers, and a product with ones in the right
// places brings them out. Of 64 KB the first pass finds the lower part of a number's index, the second the upper one.
struct ProbeParams : Arrays {  // to: (2, rows, 16), of 64 rows of the left matrix or 128 columns of the right one
  int start, leading, stride, swizzle, base_offset;
};
template <bool kLeft, int kTransposed>
struct Probe : Primitive {
  using Params = ProbeParams;
  static constexpr int kNumbers = 32 << 10;

  static MVF_DEVICE void run(const Params& p) {
    grid_wait();
    const uint32_t shared = aligned_begin(), ones = shared + kNumbers;
    const int thread = thread_index(), g = thread % 32 / 4, t = thread % 4;
    float* to = static_cast<float*>(p.to);
    for (int pass = 0; pass < 2; ++pass) {
      for (int i = thread; i < kNumbers / 2; i += kThreads) {
        const float first = pass == 0 ? 2 * i % 1024 : 2 * i / 1024, second = pass == 0 ? first + 1 : first;
        store_shared_at(shared + 4 * i, pack<Half>(first, second));
      }
      sync_block();
      const uint64_t matrix = matrix_descriptor(shared + p.start, p.leading, p.stride, p.swizzle) |
                              static_cast<uint64_t>(p.base_offset) << 49;
      if constexpr (kLeft) {
        for (int half = 0; half < 2; ++half) {  // columns 8 half and on of the identity, K innermost
          for (int i = thread; i < 64; i += kThreads) {
            const int depth = i / 32 * 8 + i % 4 * 2, column = i / 4 % 8;
            store_shared_at(ones + 4 * i, pack<Half>(depth == half * 8 + column, depth + 1 == half * 8 + column));
          }
          fence_async();
          sync_block();
          float sums[4] = {};
          wgmma_fence();
          Wgmma<Half, 8>::template ss<kTransposed, 0>(sums, matrix, matrix_descriptor(ones, 128, 128, kNoSwizzle), 0);
          wgmma_commit();
          wgmma_wait<0>();
          keep(sums);
          for (int i = 0; i < 4; ++i) {
            const int row = thread / 32 * 16 + g + i / 2 * 8, depth = half * 8 + 2 * t + i % 2;
            store_global(to + (pass * 64 + row) * 16 + depth, sums[i]);
          }
          sync_block();
        }
      } else {
        // The first 16 rows of the left matrix are the identity.
        const uint32_t word = thread < 32 ? pack<Half>(g == 2 * t, g == 2 * t + 1) : 0u;
        const uint32_t left[4] = {word, 0, 0, word};
        float sums[64] = {};
        fence_async();
        sync_block();
        wgmma_fence();
        Wgmma<Half, 128>::template rs<kTransposed>(sums, left, matrix, 0);
        wgmma_commit();
        wgmma_wait<0>();
        keep(sums);
        if (thread < 32) {
          for (int i = 0; i < 64; ++i) {
            const int column = i / 4 * 8 + 2 * t + i % 2, depth = g + i % 4 / 2 * 8;
            store_global(to + (pass * 128 + column) * 16 + depth, sums[i]);
          }
        }
      }
      sync_block();
    }
  }
};

// to (64, n) = a (64, 64) b^T (n, 64), whose rows lie one after the other in `from`; swizzled by 128 bytes.
template <class T, int kN, bool kRegistersHoldLeft>
struct ProductOf : Primitive {
  using Params = Arrays;

  static MVF_DEVICE void run(const Params& p) {
    grid_wait();
    const uint32_t left = aligned_begin(), right = left + 64 * 128;
    const int thread = thread_index(), warp = thread / 32, lane = thread % 32;
    for (int i = thread; i < (64 + kN) * 8; i += kThreads) {
      store_shared_at(left + (16 * i ^ (i / 8 % 8) * 16), load_result(static_cast<const Bytes16*>(p.from) + i));
    }
    fence_async();
    sync_block();
    float sums[kN / 2] = {};
    uint32_t words[4][4];
    for (int k = 0; k < 4; ++k) {
      const int row = warp * 16 + lane % 16;
      load_matrix_at(words[k], left + row * 128 + ((k * 32 + lane / 16 * 16) ^ row % 8 * 16));
    }
    keep(words);
    wgmma_fence();
    MVF_UNROLL
    for (int k = 0; k < 4; ++k) {
      const uint64_t b = matrix_descriptor(right + k * 32, 16, 1024, kSwizzle128);
      if constexpr (kRegistersHoldLeft) {
        Wgmma<T, kN>::rs(sums, words[k], b, k > 0);
      } else {
        Wgmma<T, kN>::ss(sums, matrix_descriptor(left + k * 32, 16, 1024, kSwizzle128), b, k > 0);
      }
    }
    wgmma_commit();
    wgmma_wait<0>();
    keep(sums);
    float* to = static_cast<float*>(p.to);
    for (int i = 0; i < kN / 2; ++i) {
      const int row = warp * 16 + lane / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      store_global(to + row * kN + column, sums[i]);
    }
  }
};

// A box of images as a tensor copy lays it out.
struct BoxParams : Arrays {
  TensorMap map;
  int bytes, channel, column, row, image;
};
struct CopyBox : Primitive {
  using Params = BoxParams;

  static MVF_DEVICE void run(const Params& p) {
    const uint32_t box = aligned_begin(), barrier = box + (64 << 10);
    const int thread = thread_index();
    if (thread == 0) {
      barrier_init(barrier, 1);
      barrier_init_fence();
    }
    sync_block();
    grid_wait();
    if (thread == 0) {
      barrier_expect(barrier, p.bytes);
      copy_tile(box, &p.map, p.channel, p.column, p.row, p.image, barrier);
    }
    barrier_wait(barrier, 0);
    for (int i = thread; i < p.bytes / 16; i += kThreads) {
      store_global(static_cast<Bytes16*>(p.to) + i, load_shared_at<Bytes16>(box + 16 * i));
    }
  }
};

// Matrices through registers: loaded, stored, transposed in each way; `to` has four times the 512 bytes of `from`.
struct MoveMatrices : Primitive {
  using Params = Arrays;

  static MVF_DEVICE void run(const Params& p) {
    grid_wait();
    const uint32_t shared = aligned_begin();
    const int thread = thread_index();
    for (int i = thread; i < 32; i += kThreads) {
      store_shared_at(shared + 16 * i, load_result(static_cast<const Bytes16*>(p.from) + i));
    }
    sync_block();
    if (thread < 32) {
      uint32_t plain[4], transposed[4], moved[4];
      load_matrix_at(plain, shared + 16 * thread);
      load_matrix_transposed_at(transposed, shared + 16 * thread);
      for (int i = 0; i < 4; ++i) moved[i] = transpose_matrix(plain[i]);
      store_matrix_at(shared + 512 + 16 * thread, plain);
      store_matrix_transposed_at(shared + 1024 + 16 * thread, plain);
      store_matrix_at(shared + 1536 + 16 * thread, transposed);
      store_matrix_at(shared + 2048 + 16 * thread, moved);
    }
    sync_block();
    for (int i = thread; i < 128; i += kThreads) {
      store_global(static_cast<Bytes16*>(p.to) + i, load_shared_at<Bytes16>(shared + 512 + 16 * i));
    }
  }
};

}  // namespace mobilevit_fast::cuda
