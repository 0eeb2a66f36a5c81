// Errors that all bindings share.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

#include "counts.h"

namespace mobilevit_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

using OptionalTensor = std::optional<Tensor>;

// Raises "<message of the parts>" as a RuntimeError unless `ok`. Not STD_TORCH_CHECK: that one puts the path of the
// source file in front of what the user reads.
template <class... Parts>
void check(bool ok, const Parts&... parts) {
  if (ok) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// Writes "(1, 64, 32, 32)"; nothing is formatted before that, since most checks succeed.
struct ShapeText {
  const Tensor& tensor;
};

inline std::ostream& operator<<(std::ostream& out, ShapeText shape) {
  const int64_t rank = shape.tensor.dim();
  out << '(';
  for (int64_t i = 0; i < rank; ++i) out << (i > 0 ? ", " : "") << shape.tensor.size(i);
  return out << (rank == 1 ? ",)" : ")");
}

inline ShapeText shape_text(const Tensor& tensor) { return {tensor}; }

// Writes "the CPU" or "cuda:0".
struct DeviceText {
  const Tensor& tensor;
};

inline std::ostream& operator<<(std::ostream& out, DeviceText device) {
  if (device.tensor.is_cpu()) return out << "the CPU";
  if (device.tensor.is_cuda()) return out << "cuda:" << device.tensor.get_device_index();
  return out << "another device";
}

inline DeviceText device_text(const Tensor& tensor) { return {tensor}; }

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cpu() == b.is_cpu() && a.is_cuda() == b.is_cuda() &&
         (a.is_cpu() || a.get_device_index() == b.get_device_index());
}

inline int64_t storage_bytes(const Tensor& tensor) {
  int64_t bytes = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
  return bytes;
}

// Whether the storage holds all elements of a tensor: it can be freed or cut behind the tensor's back
// (untyped_storage().resize_(0)), which leaves sizes, strides and even an address as they were.
inline bool is_stored(const Tensor& tensor) {
  const AtenTensorHandle handle = tensor.get();
  const int64_t rank = tensor.dim();
  int64_t *sizes = nullptr, *strides = nullptr, offset = 0;
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(handle, &sizes));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(handle, &strides));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(handle, &offset));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(handle, &dtype));
  int64_t end = sum_of(offset, 1);  // behind the last element
  for (int64_t i = 0; i < rank; ++i) {
    if (sizes[i] == 0) return true;
    end = sum_of(end, product_of(sizes[i] - 1, strides[i]));
  }
  return product_of(end, static_cast<int64_t>(aoti_torch_dtype_element_size(dtype))) <= storage_bytes(tensor);
}

// The name as Python prints it, for the types a user is likely to pass.
inline const char* dtype_text(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::Byte:
      return "torch.uint8";
    case ScalarType::Int:
      return "torch.int32";
    case ScalarType::Long:
      return "torch.int64";
    case ScalarType::Bool:
      return "torch.bool";
    default:
      return "another type";
  }
}

}  // namespace mobilevit_fast
