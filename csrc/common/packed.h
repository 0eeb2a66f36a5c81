// Kinds of packed weights, told apart by the shape of the tensor that holds them.
//
// Packed weights are a tensor of the weights' type and of two dimensions. Its rows are as long as those of one kind
// only: for one operator, one order of its weights, and one version of that order. Whatever is handed to a kernel is
// looked at by its shape, wherever it lies, and nothing that was packed for another kernel is read.
#pragma once

#include <cstdint>
#include <string_view>

#include "counts.h"

namespace mobilevit_fast {

// Grows with every change of the order in which a kernel reads its weights; kernels/packed.py has the same number.
constexpr std::string_view kPackingVersion = "2";

// Bytes of a row: a number of 16-byte pieces that follows from the operator's and the order's name. Tests know all
// names and that no two have rows of one length.
constexpr int64_t packed_row_bytes(std::string_view op, std::string_view order) {
  constexpr uint32_t kMinPieces = 16, kLengths = 176;  // so that no two kinds of this version meet
  uint32_t hash = 2166136261u;                         // FNV-1a
  for (const std::string_view text : {op, std::string_view(" "), order, std::string_view(" "), kPackingVersion}) {
    for (const char letter : text) hash = (hash ^ static_cast<unsigned char>(letter)) * 16777619u;
  }
  return 16 * (kMinPieces + hash % kLengths);
}

// Rows that so many bytes fill.
constexpr int64_t packed_rows(int64_t bytes, int64_t row_bytes) {
  return bytes == kUncountable ? kUncountable : bytes / row_bytes + (bytes % row_bytes > 0 ? 1 : 0);
}

}  // namespace mobilevit_fast
