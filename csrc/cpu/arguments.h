// Checks of an operator's arguments, in the words of its error messages.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "checks.h"
#include "mobilevit_fast/activation.h"
#include "mobilevit_fast/image.h"
#include "packing.h"

namespace mobilevit_fast::cpu {

inline Element element_of(ScalarType type) { return type == ScalarType::Float ? Element::float32 : Element::bfloat16; }

// Checks of an operator's parameters, which are of one type: the input's or, where they are packed before there is an
// input, the first weight's.
class Parameters {
 public:
  // `name` is that of the first weight.
  Parameters(const char* op, const char* name, const Tensor& weight) : Parameters(op, weight, name, nullptr) {}

  template <class... Parts>
  void expect(bool ok, const Parts&... parts) const {
    if (x_ == nullptr) {
      check(ok, "mobilevit_fast.", op_, ": expected ", parts...);
    } else {
      check(ok, "mobilevit_fast.", op_, ": expected ", parts..., " (x.shape=", shape_text(*x_), ")");
    }
  }

  // The rank, with every size at least 1.
  void rank(const char* name, const Tensor& tensor, int64_t dimensions) const {
    bool ok = tensor.dim() == dimensions;
    for (int64_t i = 0; ok && i < dimensions; ++i) ok = tensor.size(i) > 0;
    expect(ok, name, " of ", dimensions, " dimensions, none of them 0, got ", shape_text(tensor));
  }

  // Shape, device and type of a parameter; with `float32`, that type is allowed beside the common one.
  void parameter(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape, bool float32) const {
    bool same = tensor.dim() == static_cast<int64_t>(shape.size());
    int64_t i = 0;
    for (const int64_t size : shape) same = same && tensor.size(i++) == size;
    if (!same) {
      std::ostringstream wanted;
      const char* separator = "";
      for (const int64_t size : shape) wanted << separator << size, separator = ", ";
      expect(false, name, " of shape (", wanted.str(), shape.size() == 1 ? ",)" : ")", ", got ", shape_text(tensor));
    }
    const ScalarType given = tensor.scalar_type();
    expect(given == type_ || (float32 && given == ScalarType::Float), name, " of type ", dtype_text(type_),
           ", like the ", first_, ", got ", dtype_text(given));
    expect(tensor.is_cpu(), name, " on the CPU, like the ", first_, ", got one on another device");
  }

  void parameter(const char* name, const std::optional<Tensor>& tensor, std::initializer_list<int64_t> shape) const {
    if (tensor) parameter(name, *tensor, shape, true);
  }

  void pair(const char* name, const std::vector<int64_t>& values, int64_t least) const {
    expect(values.size() == 2, "two values of ", name, ", got ", values.size());
    expect(values[0] >= least && values[1] >= least, name, " of at least ", least, " in both directions, got [",
           values[0], ", ", values[1], "]");
  }

  Activation activation(const char* name, const std::string& value) const {
    if (value == "none") return Activation::none;
    if (value == "relu") return Activation::relu;
    expect(value == "silu", name, " none, relu or silu, got '", value, "'");
    return Activation::silu;
  }

 protected:
  Parameters(const char* op, const Tensor& first, const char* first_name, const Tensor* x)
      : x_(x), op_(op), first_(first_name), type_(first.scalar_type()) {
    expect(type_ == ScalarType::Float || type_ == ScalarType::BFloat16, first_,
           " of type torch.float32 or torch.bfloat16, got ", dtype_text(type_));
  }

  const Tensor* x_;

 private:
  const char* op_;
  const char* first_;
  ScalarType type_;
};

// Checks of a call: of the input, of parameters that suit it, of what is done with them.
class Arguments : public Parameters {
 public:
  Arguments(const char* op, const Tensor& x) : Parameters(op, x, "input", &x) {
    expect(x.dim() == 4, "input of shape (batch, channels, height, width), got ", x.dim(), " dimensions");
  }

  void channels(int64_t wanted) const {
    expect(x_->size(1) == wanted, "input of ", wanted, " channels, got ", x_->size(1));
  }

  // Checks the geometry; `out_h` and `out_w` receive the size of the result.
  Window window(int64_t kernel_h, int64_t kernel_w, const std::vector<int64_t>& stride,
                const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation, int64_t& out_h,
                int64_t& out_w) const {
    pair("stride", stride, 1);
    pair("padding", padding, 0);
    pair("dilation", dilation, 1);
    const int64_t room_h = x_->size(2) + 2 * padding[0] - dilation[0] * (kernel_h - 1) - 1;
    const int64_t room_w = x_->size(3) + 2 * padding[1] - dilation[1] * (kernel_w - 1) - 1;
    expect(x_->size(2) > 0 && x_->size(3) > 0 && room_h >= 0 && room_w >= 0, "an input that holds the ", kernel_h, "x",
           kernel_w, " window at least once, got one it does not fit");
    out_h = room_h / stride[0] + 1, out_w = room_w / stride[1] + 1;
    return {kernel_h, kernel_w, stride[0], stride[1], padding[0], padding[1], dilation[0], dilation[1]};
  }

  // Packed weights as given, or made of `weights` where none were.
  template <class Weights>
  Tensor packed(const std::optional<Tensor>& given, const Products& products, const Weights& weights) const {
    if (!given) return weights.pack(products);
    const int64_t floats = weights.packed_floats(products);
    expect(given->dim() == 1 && given->size(0) == floats && given->scalar_type() == ScalarType::Float &&
               given->is_cpu() && given->stride(0) == 1,
           "packed weights of shape (", floats, ",) and type torch.float32 on the CPU, as made for the kernel variant ",
           isa_name(products.isa), ", got ", shape_text(*given));
    return *given;
  }
};

// An input as kernels see it. Converted to channels_last unless its channels, or, with `any_strides`, all its
// dimensions, may be strided.
inline ImageBatch image_batch(Tensor& x, bool any_strides = false) {
  if (!any_strides && x.stride(1) != 1 && x.size(1) > 1) {
    x = torch::stable::contiguous(x, torch::headeronly::MemoryFormat::ChannelsLast);
  }
  const int64_t channel_stride = x.size(1) > 1 ? x.stride(1) : 1;
  return {x.const_data_ptr(), x.size(0),      x.size(1),   x.size(2),  x.size(3),
          x.stride(0),        channel_stride, x.stride(2), x.stride(3)};
}

}  // namespace mobilevit_fast::cpu
