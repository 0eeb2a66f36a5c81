// Sizes that host and device compute alike.
#pragma once

#include "common/activation.h"
#include "device.h"

namespace mobilevit_fast::cuda {

// One instruction: kMatrixRows pixels by kMatrixColumns output channels over kMatrixDepth input channels.
constexpr int kMatrixRows = 16, kMatrixColumns = 8, kMatrixDepth = 16;
constexpr int kPieceNumbers = 8;                  // 16-bit elements in 16 bytes
constexpr int kPairColumns = 2 * kMatrixColumns;  // output channels of which a lane loads the weights at once

MVF_HOST_DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
MVF_HOST_DEVICE constexpr int round_up(int a, int b) { return ceil_div(a, b) * b; }

// Elements from row to row: eight rows of 16 bytes one below the other lie in different banks.
MVF_HOST_DEVICE int row_pitch(int width) {
  const int pieces = ceil_div(width, kPieceNumbers);
  return (pieces % 2 == 0 ? pieces + 1 : pieces) * kPieceNumbers;
}

// A number as a type, to choose a kernel by.
template <int kNumber>
struct Size {
  static constexpr int kSize = kNumber;
};

// A kernel, to call something by.
template <class K>
struct KernelType {
  using Type = K;
};

// Bytes of shared memory that an array takes.
template <class T>
size_t shared_size(int count) {
  return (count * sizeof(T) + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
}

}  // namespace mobilevit_fast::cuda
