// Memory of results, of packed weights and of what lies between two steps of an operator, from torch's allocator.
#pragma once

#include <torch/csrc/stable/tensor.h>

namespace mobilevit_fast::cpu {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Uninitialised tensors on the CPU, of float32 or bfloat16: a vector of float32, a dense matrix, and an image
// (n, c, h, w) in channels_last order.
Tensor empty_floats(int64_t count);
Tensor empty_matrix(int64_t rows, int64_t columns, ScalarType type);
Tensor empty_channels_last(int64_t n, int64_t c, int64_t h, int64_t w, ScalarType type);

}  // namespace mobilevit_fast::cpu
