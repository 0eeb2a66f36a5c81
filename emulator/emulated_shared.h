// Shared memory by addresses, matrices in it and shuffles, of cuda/addresses.h and device_sm90.h.
#pragma once

#include "sm90_cluster.h"

namespace mobilevit_fast::cuda {

inline emulated::Sm90Block& sm90_block() { return emulated::Sm90Block::running(); }

inline uint32_t shared_address(const void* pointer) { return sm90_block().window.address(pointer); }
inline uint32_t shared_memory_begin() { return shared_address(sm90_block().window.data()); }

template <class T>
T load_shared_at(uint32_t address, MVF_PLACE) {
  T value;
  ++sm90_block().device.counts.instructions;
  sm90_block().load(address, &value, sizeof(T), MVF_HERE);
  return value;
}
template <class T>
T load_shared_constant(uint32_t address, MVF_PLACE) {
  return load_shared_at<T>(address, file, line);
}
template <class T>
void store_shared_at(uint32_t address, T value, MVF_PLACE) {
  ++sm90_block().device.counts.instructions;
  sm90_block().store(address, &value, sizeof(T), MVF_HERE);
}

MVF_OUT_OF_LINE inline void copy_async_at(uint32_t target, const void* source, bool there, MVF_PLACE) {
  emulated::Sm90Block& block = sm90_block();
  const size_t at = block.window.offset(target, 16, 16, MVF_HERE);
  block.expect_no_barrier(at, 16, MVF_HERE);
  block.window.check_store(at, 16, MVF_HERE);
  block.copy_async(block.window.data() + at, source, there ? 16 : 0, 16, MVF_HERE);
}

// A lane's registers and the row whose address it gives.
struct MatrixRow {
  uint32_t* registers;
  char* row;
};

// Between the registers of a warp and four matrices: what `move` does with a row and a pair of elements of a register.
template <class Move>
void move_matrices(const std::array<MatrixRow*, emulated::kWarp>& lanes, bool transposed, const Move& move) {
  for (size_t lane = 0; lane < lanes.size(); ++lane) {
    for (size_t matrix = 0; matrix < 4; ++matrix) {
      for (size_t i = 0; i < 2; ++i) {
        const size_t across = lane / 4, along = 2 * (lane % 4) + i;
        const size_t row = transposed ? along : across, number = transposed ? across : along;
        move(lanes[matrix * 8 + row]->row + 2 * number,
             reinterpret_cast<char*>(&lanes[lane]->registers[matrix]) + 2 * i);
      }
    }
  }
}
MVF_OUT_OF_LINE inline void load_matrices_at(uint32_t (&r)[4], uint32_t row, bool transposed,
                                             const emulated::Place& place) {
  emulated::Sm90Block& block = sm90_block();
  Bytes16 copy;
  block.load(row, &copy, sizeof(copy), place);
  MatrixRow payload{r, reinterpret_cast<char*>(&copy)};
  block.collective(transposed ? "ldmatrix.trans" : "ldmatrix", place, payload, [&](const auto& lanes) {
    move_matrices(lanes, transposed, [](const char* number, char* place) { std::memcpy(place, number, 2); });
  });
}
MVF_OUT_OF_LINE inline void store_matrices_at(uint32_t row, const uint32_t (&r)[4], bool transposed,
                                              const emulated::Place& place) {
  emulated::Sm90Block& block = sm90_block();
  uint32_t registers[4];
  Bytes16 copy;
  std::memcpy(registers, r, sizeof(registers));
  MatrixRow payload{registers, reinterpret_cast<char*>(&copy)};
  block.collective(transposed ? "stmatrix.trans" : "stmatrix", place, payload, [&](const auto& lanes) {
    move_matrices(lanes, transposed, [](char* number, const char* place) { std::memcpy(number, place, 2); });
  });
  block.store(row, &copy, sizeof(copy), place);
}
inline void load_matrix_at(uint32_t (&r)[4], uint32_t row, MVF_PLACE) { load_matrices_at(r, row, false, MVF_HERE); }
inline void load_matrix_constant(uint32_t (&r)[4], uint32_t row, MVF_PLACE) {
  load_matrices_at(r, row, false, MVF_HERE);
}
inline void load_matrix_transposed_at(uint32_t (&r)[4], uint32_t row, MVF_PLACE) {
  load_matrices_at(r, row, true, MVF_HERE);
}
inline void store_matrix_at(uint32_t row, const uint32_t (&r)[4], MVF_PLACE) {
  store_matrices_at(row, r, false, MVF_HERE);
}
inline void store_matrix_transposed_at(uint32_t row, const uint32_t (&r)[4], MVF_PLACE) {
  store_matrices_at(row, r, true, MVF_HERE);
}

template <class T>
struct Shuffled {
  T value, result;
  int by;
};
// `from` gives the lane that a lane takes from.
template <class T, class From>
MVF_OUT_OF_LINE T shuffle_lanes(T value, int by, const char* what, const emulated::Place& place, const From& from) {
  Shuffled<T> payload{value, value, by};
  block().collective(what, place, payload, [&](const auto& lanes) {
    for (int lane = 0; lane < kWarpSize; ++lane) lanes[lane]->result = lanes[from(lane, lanes[lane]->by)]->value;
  });
  return payload.result;
}
inline uint32_t shuffle(uint32_t value, int lane, MVF_PLACE) {
  return shuffle_lanes(value, lane, "shuffle", MVF_HERE, [](int, int by) { return by & 31; });
}
inline float shuffle(float value, int lane, MVF_PLACE) {
  return shuffle_lanes(value, lane, "shuffle", MVF_HERE, [](int, int by) { return by & 31; });
}
inline uint32_t shuffle_up(uint32_t value, int lanes, MVF_PLACE) {
  return shuffle_lanes(value, lanes, "shuffle", MVF_HERE, [](int i, int by) { return i < by ? i : i - by; });
}
inline uint32_t shuffle_down(uint32_t value, int lanes, MVF_PLACE) {
  return shuffle_lanes(value, lanes, "shuffle", MVF_HERE, [](int i, int by) { return i + by > 31 ? i : i + by; });
}
inline uint32_t shuffle_xor(uint32_t value, int mask, MVF_PLACE) {
  return shuffle_lanes(value, mask, "shuffle", MVF_HERE, [](int i, int by) { return (i ^ by) & 31; });
}
inline int warp_uniform(int value, MVF_PLACE) {
  const int first = shuffle_lanes(value, 0, "shuffle", MVF_HERE, [](int, int by) { return by; });
  if (first != value) {
    throw emulated::Error("warp_uniform at " + MVF_HERE.text() + ": expected the same number in all lanes, got " +
                          std::to_string(first) + " and " + std::to_string(value));
  }
  return first;
}
inline uint32_t transpose_matrix(uint32_t word, MVF_PLACE) {
  Shuffled<uint32_t> payload{word, 0, 0};
  block().collective("movmatrix", MVF_HERE, payload, [](const auto& lanes) {
    const auto number = [&](int row, int column) {
      return lanes[row * 4 + column / 2]->value >> column % 2 * 16 & 0xffff;
    };
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      lanes[lane]->result = number(column, row) | number(column + 1, row) << 16;
    }
  });
  return payload.result;
}

}  // namespace mobilevit_fast::cuda
