// What the bindings of all CUDA operators share: checks, packed weights, memory of results, the stream.
//
// With MVF_EMULATED the same bindings take tensors on the CPU, and launches run on the emulator.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <array>
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

// Of a type, on the device of `like`, uninitialised.
inline Tensor empty_strided(const Tensor& like, int32_t dtype, const std::vector<int64_t>& sizes,
                            const std::vector<int64_t>& strides) {
  int64_t bytes = sizeof(float);  // at most, of a number
  for (const int64_t size : sizes) bytes = product_of(bytes, size);
  check(bytes != kUncountable,
        "mobilevit_fast: expected a result, and what lies between two steps, of fewer than 2^63 bytes");
  int32_t device = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
                                                  dtype, device, like.get_device_index(), &handle));
  Tensor result(handle);
#if defined(MVF_EMULATED)
  if (!emulator::Log::get().options.idle) torch::stable::fill_(result, std::numeric_limits<double>::quiet_NaN());
#endif
  return result;
}

// A dense array, of the type of `like` or of float32, and an image batch (n, c, h, w) in channels_last order.
inline int32_t dtype_of(const Tensor& tensor) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &dtype));
  return dtype;
}
inline std::vector<int64_t> dense_strides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size() - 1; i > 0; --i) strides[i - 1] = product_of(strides[i], sizes[i]);
  return strides;
}
inline Tensor empty(const Tensor& like, const std::vector<int64_t>& sizes) {
  return empty_strided(like, dtype_of(like), sizes, dense_strides(sizes));
}
inline Tensor empty_floats(const Tensor& like, const std::vector<int64_t>& sizes) {
  return empty_strided(like, aoti_torch_dtype_float32(), sizes, dense_strides(sizes));
}
inline Tensor empty_image(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w) {
  return empty_strided(like, dtype_of(like), {n, c, h, w}, {product_of(h, w, c), 1, product_of(w, c), c});
}

// The tensor in channels_last order, on an address from which 16 bytes can be read at once; itself if it is both.
inline Tensor dense_image(const Tensor& x) {
  const Tensor dense = torch::stable::contiguous(x, torch::headeronly::MemoryFormat::ChannelsLast);
  if (reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % sizeof(Bytes16) == 0) return dense;
  Tensor moved = empty_image(x, x.size(0), x.size(1), x.size(2), x.size(3));
  torch::stable::copy_(moved, dense);
  return moved;
}

class Arguments : public ArgumentChecks {
 public:
  // With `bytes`, an input of torch.uint8 is taken too.
  template <class... Sizes>
  Arguments(const char* op, const Tensor& x, const Tensor& packed, bool bytes, Sizes... sizes)
      : ArgumentChecks(kTypes, op, x, packed, bytes), op_(op) {
    ArgumentChecks::sizes(std::array<int64_t, sizeof...(Sizes)>{sizes...});
  }

  const char* op() const { return op_; }

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
    constexpr int64_t kMax = (int64_t{1} << 31) - (1 << 16);
    expect(value < kMax, "fewer than ", kMax, " ", name, ", got ", value);
    return static_cast<int>(value);
  }

  void launched(cudaError_t result) const {
    check(result == cudaSuccess, "mobilevit_fast.", op_, ": the kernel did not start: ", cudaGetErrorString(result));
  }

 private:
  const char* op_;
};

// Orders of packed weights, for every chip and for compute capability 9.0 too. The number grows with every change of
// one, to the next with which no two kinds have rows of one length; kernels/cuda/backend.py has the same.
constexpr const char *kOrder = "sm80 4", *kSm90Order = "sm90 4";

// The parts of packed weights, one after the other, each rounded up to 16 bytes: as the function `joined` of
// mobilevit_fast/kernels/cuda/packing.py leaves them. Where they were packed on compute capability 9.0, weights for the
// kernels of csrc/cuda/sm90 follow those for every chip.
class PackedParts {
 public:
  PackedParts(const Arguments& arguments, const Tensor& packed)
      : arguments_(arguments),
        packed_(packed),
        sm90_(packed.dim() == 2 && product_of(packed.size(1), kNumber) == packed_row_bytes(arguments.op(), kSm90Order)),
        begin_(static_cast<const char*>(packed.const_data_ptr())) {}

  template <class T>
  const T* take(int64_t count) {
    const char* part = begin_ + used_;
    used_ = sum_of(used_, sum_of(product_of(count, sizeof(T)), 15) / 16 * 16);
    return reinterpret_cast<const T*>(part);
  }
  // Whether weights for the kernels of csrc/cuda/sm90 are among them; for those that are for float16 alone.
  bool sm90() const { return sm90_; }
  bool sm90_half() const { return sm90_ && packed_.scalar_type() == ScalarType::Half; }

  // Once all parts were taken, before any is read.
  void check() const {
    const char* order = sm90_ ? kSm90Order : kOrder;
    arguments_.packed(packed_, used_, packed_row_bytes(arguments_.op(), order), order);
  }

 private:
  static constexpr int64_t kNumber = 2;  // bytes of one

  const Arguments& arguments_;
  const Tensor& packed_;
  bool sm90_;
  const char* begin_;
  int64_t used_ = 0;
};

}  // namespace mobilevit_fast::cuda
