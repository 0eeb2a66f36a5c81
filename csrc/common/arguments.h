// Checks of an operator's arguments, in the words of its error messages.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "activation.h"
#include "checks.h"
#include "image.h"

namespace mobilevit_fast {

// The types that a library's kernels take.
struct Types {
  ScalarType a, b;
  const char* text;
};

// Checks of an operator's parameters, which are of one type and on one device: the input's or, where they are packed
// before there is an input, the first weight's.
class ParameterChecks {
 public:
  // `name` is that of the first weight.
  ParameterChecks(const Types& types, const char* op, const char* name, const Tensor& weight)
      : ParameterChecks(types, op, weight, name, nullptr) {}

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

  // Numbers that are there to be read.
  void stored(const char* name, const Tensor& tensor) const {
    if (is_stored(tensor)) return;
    int64_t bytes = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
    expect(false, name, " with memory for its shape ", shape_text(tensor), ", got one whose storage was resized to ",
           bytes, " bytes");
  }

  // Shape, device, type and memory of a parameter; with `float32`, that type is allowed beside the common one.
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
           ", like the ", first_name_, ", got ", dtype_text(given));
    expect(same_device(tensor, first_), name, " on ", device_text(first_), ", like the ", first_name_, ", got one on ",
           device_text(tensor));
    stored(name, tensor);
  }

  void parameter(const char* name, const std::optional<Tensor>& tensor, std::initializer_list<int64_t> shape) const {
    if (tensor) parameter(name, *tensor, shape, true);
  }

  void pair(const char* name, const std::vector<int64_t>& values, int64_t least) const {
    expect(values.size() == 2, "two values of ", name, ", got ", values.size());
    expect(values[0] >= least && values[1] >= least, name, " of at least ", least, " in both directions, got [",
           values[0], ", ", values[1], "]");
    // Positions in the padded image are then less than 2^63.
    expect(values[0] < kMostPixels && values[1] < kMostPixels, name, " of less than 2^61 in both directions, got [",
           values[0], ", ", values[1], "]");
  }

  Activation activation(const char* name, const std::string& value) const {
    if (value == "none") return Activation::none;
    if (value == "relu") return Activation::relu;
    expect(value == "silu", name, " none, relu or silu, got '", value, "'");
    return Activation::silu;
  }

 protected:
  ParameterChecks(const Types& types, const char* op, const Tensor& first, const char* first_name, const Tensor* x)
      : x_(x), op_(op), first_(first), first_name_(first_name), type_(first.scalar_type()) {
    expect(type_ == types.a || type_ == types.b, first_name_, " of type ", types.text, ", got ", dtype_text(type_));
  }

  static constexpr int64_t kMostPixels = int64_t{1} << 61;

  const Tensor* x_;

 private:
  const char* op_;
  const Tensor& first_;
  const char* first_name_;
  ScalarType type_;
};

// Checks of a call: of the input, of parameters that suit it, of what is done with them.
class ArgumentChecks : public ParameterChecks {
 public:
  ArgumentChecks(const Types& types, const char* op, const Tensor& x) : ArgumentChecks(types, op, x, x, "input") {}

  // Parameters are like another tensor than the input, whose type is the caller's matter.
  ArgumentChecks(const Types& types, const char* op, const Tensor& x, const Tensor& like, const char* like_name)
      : ParameterChecks(types, op, like, like_name, &x) {
    expect(x.dim() == 4, "input of shape (batch, channels, height, width), got ", x.dim(), " dimensions");
    stored("input", x);
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
    const auto room = [&](int64_t size, int64_t kernel, int i) {
      expect(size < kMostPixels, "an input of fewer than 2^61 rows and columns, got ", size);
      return size == 0 ? -1 : size + 2 * padding[i] - 1 - product_of(dilation[i], kernel - 1);
    };
    const int64_t room_h = room(x_->size(2), kernel_h, 0), room_w = room(x_->size(3), kernel_w, 1);
    expect(room_h >= 0 && room_w >= 0, "an input that holds the ", kernel_h, "x", kernel_w,
           " window at least once, got one it does not fit");
    out_h = room_h / stride[0] + 1, out_w = room_w / stride[1] + 1;
    return {kernel_h, kernel_w, stride[0], stride[1], padding[0], padding[1], dilation[0], dilation[1]};
  }
};

}  // namespace mobilevit_fast
