// What the bindings of all CUDA operators share: checks, packed weights, memory of results, the stream.
//
// With MVF_EMULATED the same bindings take tensors on the CPU, and launches run on the emulator.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <limits>

#include "common/arguments.h"
#include "device.h"
#include "runtime.h"

#if defined(MVF_EMULATED)
#define MVF_DISPATCH_KEY CPU
#else
#define MVF_DISPATCH_KEY CUDA
#endif

namespace mobilevit_fast::cuda {

// Shared memory that a block may have on every GPU from compute capability 8.0 on.
constexpr int64_t kSharedEverywhere = 99 << 10;

constexpr Types kTypes{ScalarType::Half, ScalarType::BFloat16, "torch.float16 or torch.bfloat16"};

// The device of a tensor, current as long as this lives, and the stream that work on it goes to.
class Target {
 public:
#if defined(MVF_EMULATED)
  explicit Target(const Tensor&) {}
  cudaStream_t stream() const { return nullptr; }
#else
  explicit Target(const Tensor& x) : index_(x.get_device_index()), guard_(index_) {}
  cudaStream_t stream() const {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    return static_cast<cudaStream_t>(stream);
  }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
#endif
};

// Of the type and on the device of `like`, uninitialised.
inline Tensor empty_strided(const Tensor& like, const std::vector<int64_t>& sizes,
                            const std::vector<int64_t>& strides) {
  int64_t bytes = sizeof(float);  // at most, of a number
  for (const int64_t size : sizes) bytes = product_of(bytes, size);
  check(bytes != kUncountable,
        "mobilevit_fast: expected a result, and what lies between two steps, of fewer than 2^63 bytes");
  int32_t dtype = 0, device = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
                                                  dtype, device, like.get_device_index(), &handle));
  Tensor result(handle);
#if defined(MVF_EMULATED)
  torch::stable::fill_(result, std::numeric_limits<double>::quiet_NaN());
#endif
  return result;
}

// A dense array, and an image batch (n, c, h, w) in channels_last order.
inline Tensor empty(const Tensor& like, const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size() - 1; i > 0; --i) strides[i - 1] = product_of(strides[i], sizes[i]);
  return empty_strided(like, sizes, strides);
}
inline Tensor empty_image(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w) {
  return empty_strided(like, {n, c, h, w}, {product_of(h, w, c), 1, product_of(w, c), c});
}

// The tensor in channels_last order, on an address from which 16 bytes can be read at once; itself if it is both.
inline Tensor dense_image(const Tensor& x) {
  const Tensor dense = torch::stable::contiguous(x, torch::headeronly::MemoryFormat::ChannelsLast);
  if (reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % sizeof(Bytes16) == 0) return dense;
  Tensor moved = empty_image(x, x.size(0), x.size(1), x.size(2), x.size(3));
  torch::stable::copy_(moved, dense);
  return moved;
}

// The parts of packed weights, one after the other, each rounded up to 16 bytes: as the function `joined` of
// mobilevit_fast/kernels/cuda/packing.py leaves them.
class PackedParts {
 public:
  explicit PackedParts(const Tensor& packed) : begin_(static_cast<const char*>(packed.const_data_ptr())) {}

  template <class T>
  const T* take(int64_t count) {
    const char* part = begin_ + used_;
    used_ = sum_of(used_, sum_of(product_of(count, sizeof(T)), 15) / 16 * 16);
    return reinterpret_cast<const T*>(part);
  }
  int64_t floats() const { return used_ / static_cast<int64_t>(sizeof(float)); }
  // Whether there is more behind the parts taken so far: weights for the kernels of csrc/cuda/sm90.
  bool more(const Tensor& packed) const { return packed.dim() == 1 && packed.size(0) > floats(); }

 private:
  const char* begin_;
  int64_t used_ = 0;
};

class Arguments : public ArgumentChecks {
 public:
  Arguments(const char* op, const Tensor& x) : ArgumentChecks(kTypes, op, x), op_(op) {}
  Arguments(const char* op, const Tensor& x, const Tensor& like, const char* like_name)
      : ArgumentChecks(kTypes, op, x, like, like_name), op_(op) {}

  void multiple_of_eight(const char* name, int64_t size) const {
    expect(size % 8 == 0, name, " that are a multiple of 8, got ", size);
  }
  // One number for both directions.
  int same(const char* name, const std::vector<int64_t>& values, int64_t least) const {
    pair(name, values, least);
    expect(values[0] == values[1], "the same ", name, " in both directions, got [", values[0], ", ", values[1], "]");
    expect(values[0] < 1 << 15, name, " of less than 2^15, got ", values[0]);
    return static_cast<int>(values[0]);
  }
  // Sizes that kernels count in 32 bits, rounded up to a tile: those of an image, and of everything that is laid over
  // the grid.
  int small(const char* name, int64_t value) const {
    constexpr int64_t kMost = (int64_t{1} << 31) - (1 << 16);
    expect(value < kMost, "fewer than ", kMost, " ", name, ", got ", value);
    return static_cast<int>(value);
  }

  // Once all parts were taken.
  void check_packed(const Tensor& packed, const PackedParts& parts) const {
    expect(packed.dim() == 1 && packed.size(0) == parts.floats() && packed.scalar_type() == ScalarType::Float &&
               packed.stride(0) == 1 && same_device(packed, *x_),
           "packed weights of shape (", parts.floats(), ",) and type torch.float32 on ", device_text(*x_), ", got ",
           shape_text(packed));
    stored("packed weights", packed);
    expect(reinterpret_cast<uintptr_t>(packed.const_data_ptr()) % sizeof(Bytes16) == 0,
           "packed weights at an address that is a multiple of 16");
  }

  void launched(cudaError_t result) const {
    check(result == cudaSuccess, "mobilevit_fast.", op_, ": the kernel did not start: ", cudaGetErrorString(result));
  }

 private:
  const char* op_;
};

}  // namespace mobilevit_fast::cuda
