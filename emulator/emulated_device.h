// The emulated side of cuda/device.h: the semantics that NVIDIA's documents give, on emulator.h.
#pragma once

#include "block.h"
#include "halves.h"

#define MVF_DEVICE inline
#define MVF_HOST_DEVICE inline
#define MVF_UNROLL
#define MVF_UNROLL_SOME
#define MVF_NO_UNROLL

namespace mobilevit_fast::cuda {

namespace emulated = mobilevit_fast::emulator;

// The place in the kernel, for whatever is reported or counted by it.
#define MVF_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define MVF_HERE \
  emulated::Place { file, line }

inline emulated::Block& block() { return emulated::Block::running(); }
inline int thread_index() { return static_cast<int>(block().self().index); }
inline int block_index() { return static_cast<int>(block().index); }

inline void sync_block(MVF_PLACE) { block().barrier(MVF_HERE); }
inline void sync_warp(MVF_PLACE) {
  int nothing = 0;
  block().collective("warp barrier", MVF_HERE, nothing, [](const auto&) {});
}

inline float shuffle_xor(float value, int mask, MVF_PLACE) {
  struct Payload {
    float value, result;
    int mask;
  } payload{value, 0, mask};
  block().collective("shuffle", MVF_HERE, payload, [](const auto& lanes) {
    for (size_t lane = 0; lane < lanes.size(); ++lane) {
      lanes[lane]->result = lanes[(lane ^ lanes[lane]->mask) % lanes.size()]->value;
    }
  });
  return payload.result;
}

inline bool any_lane(bool holds, MVF_PLACE) {
  struct Payload {
    bool holds, result;
  } payload{holds, false};
  block().collective("vote", MVF_HERE, payload, [](const auto& lanes) {
    bool any = false;
    for (const auto* lane : lanes) any = any || lane->holds;
    for (auto* lane : lanes) lane->result = any;
  });
  return payload.result;
}

inline void grid_wait() { block().self().sees_global = true; }
inline void grid_launch_dependents() {}

class SharedMemory {
 public:
  template <class T>
  T* take(int count) {
    return reinterpret_cast<T*>(block().shared_array(count * sizeof(T)));
  }
};

template <class T>
void expect_aligned(const T* address, const emulated::Place& place) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0)
    throw emulated::Error("misaligned access at " + place.text());
}

template <class T>
T load_global(const T* source, MVF_PLACE) {
  expect_aligned(source, MVF_HERE);
  block().touch_unchanging(source, sizeof(T), MVF_HERE).read += sizeof(T);
  return *source;
}
template <class T>
T load_written(const T* source, MVF_PLACE) {
  expect_aligned(source, MVF_HERE);
  block().touch_global(source, sizeof(T), MVF_HERE).read += sizeof(T);
  return *source;
}
template <class T>
void store_global(T* target, T value, MVF_PLACE) {
  expect_aligned(target, MVF_HERE);
  block().touch_global(target, sizeof(T), MVF_HERE).written += sizeof(T);
  *target = value;
}

template <class T>
T load_shared(const T* source, MVF_PLACE) {
  expect_aligned(source, MVF_HERE);
  ++block().device.counts.instructions;
  block().touch_shared(source, sizeof(T), MVF_HERE);
  return *source;
}
template <class T>
void store_shared(T* target, T value, MVF_PLACE) {
  expect_aligned(target, MVF_HERE);
  ++block().device.counts.instructions;
  block().touch_shared(target, sizeof(T), MVF_HERE);
  *target = value;
}

MVF_OUT_OF_LINE inline void copy_async(void* target, const void* source, bool there, MVF_PLACE) {
  block().copy_async(target, source, there ? 16 : 0, 16, MVF_HERE);
}
inline void commit_async() { block().commit_async(); }
template <int kPending>
void wait_async() {
  block().wait_async(kPending);
}

inline float to_float(float value) { return value; }
inline float to_float(BFloat16 value) { return emulated::float_of_bfloat16(value.bits); }
inline float to_float(Half value) { return emulated::float_of_half(value.bits); }

template <class T>
T from_float(float value);
template <>
inline float from_float<float>(float value) {
  return value;
}
template <>
inline BFloat16 from_float<BFloat16>(float value) {
  return {emulated::bfloat16_of_float(value)};
}
template <>
inline Half from_float<Half>(float value) {
  return {emulated::half_of_float(value)};
}

template <class T>
Float2 unpack(uint32_t word) {
  return {to_float(T{static_cast<uint16_t>(word)}), to_float(T{static_cast<uint16_t>(word >> 16)})};
}
template <class T>
uint32_t pack(float x, float y) {
  return from_float<T>(x).bits | static_cast<uint32_t>(from_float<T>(y).bits) << 16;
}

// The fragment registers of all lanes.
struct MatrixLoad {
  uint32_t* registers;
  const char* row;
};

MVF_OUT_OF_LINE inline void load_matrices(uint32_t (&r)[4], const void* row, bool transposed,
                                          const emulated::Place& place) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) throw emulated::Error("ldmatrix: misaligned row at " + place.text());
  MatrixLoad payload{r, static_cast<const char*>(row)};
  block().touch_shared(row, 16, place);
  block().collective(transposed ? "ldmatrix.trans" : "ldmatrix", place, payload, [&](const auto& lanes) {
    for (size_t lane = 0; lane < lanes.size(); ++lane) {
      for (size_t matrix = 0; matrix < 4; ++matrix) {
        uint16_t pair[2];
        for (size_t i = 0; i < 2; ++i) {
          const size_t across = lane / 4, along = 2 * (lane % 4) + i;
          const size_t from = transposed ? along : across, number = transposed ? across : along;
          std::memcpy(&pair[i], lanes[matrix * 8 + from]->row + 2 * number, 2);
        }
        lanes[lane]->registers[matrix] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
      }
    }
  });
}
inline void load_matrix(uint32_t (&r)[4], const void* row, MVF_PLACE) { load_matrices(r, row, false, MVF_HERE); }
inline void load_matrix_transposed(uint32_t (&r)[4], const void* row, MVF_PLACE) {
  load_matrices(r, row, true, MVF_HERE);
}

// Fragments: PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type". The products of a sum are exact;
// in which order they are added, and how much is kept, is not documented: here they are added in double precision.
template <class T>
MVF_OUT_OF_LINE void multiply_matrix(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], MVF_PLACE) {
  struct Payload {
    float* d;
    const uint32_t *a, *b;
  } payload{d, a, b};
  block().collective("mma", MVF_HERE, payload, [](const auto& lanes) {
    float left[16][16], right[16][8];
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 4; ++i) {
        const Float2 v = unpack<T>(lanes[lane]->a[i]);
        float* at = &left[group + i % 2 * 8][pair + i / 2 * 8];
        at[0] = v.x, at[1] = v.y;
      }
      for (int i = 0; i < 2; ++i) {
        const Float2 v = unpack<T>(lanes[lane]->b[i]);
        right[pair + i * 8][group] = v.x, right[pair + i * 8 + 1][group] = v.y;
      }
    }
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 4; ++i) {
        double sum = lanes[lane]->d[i];
        for (int k = 0; k < 16; ++k) {
          sum += static_cast<double>(left[group + i / 2 * 8][k]) * static_cast<double>(right[k][pair + i % 2]);
        }
        lanes[lane]->d[i] = static_cast<float>(sum);
      }
    }
    ++block().device.counts.products;
  });
}

// The error of the real instructions is made of roundings to fewer bits.
inline float with_bits(float value, int bits) {
  int exponent;
  const float fraction = std::frexp(value, &exponent);
  return std::isfinite(value) ? std::ldexp(std::nearbyint(std::ldexp(fraction, bits)), exponent - bits) : value;
}
inline float exp2_approximate(float x) {
  ++block().device.counts.exponentials;
  return with_bits(std::exp2(x), 22);
}
inline float reciprocal_approximate(float x) {
  ++block().device.counts.exponentials;
  return with_bits(1.0f / x, 23);
}
inline float reciprocal_root(float x) {
  ++block().device.counts.exponentials;
  return with_bits(static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))), 23);
}
inline float maximum(float x, float y) { return std::fmax(x, y); }
inline float tanh_approximate(float x) {
  ++block().device.counts.exponentials;
  const float rounded = with_bits(std::tanh(x), 11);
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return std::fabs(rounded) == 1.0f ? rounded : rounded * (1.0f + (bits % 2 == 0 ? 0x1p-12f : -0x1p-12f));
}

}  // namespace mobilevit_fast::cuda
