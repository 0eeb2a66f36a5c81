// Checks of an operator's arguments, in the words of its error messages.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "activation.h"
#include "checks.h"
#include "image.h"
#include "packed.h"

namespace mobilevit_fast {

// The types that a library's kernels take.
struct Types {
  ScalarType a, b;
  const char* text;
};

// Checks of a call: of the input, of the packed weights, whose type is that of the result, and of what is done with
// them. Sizes of the weights come with the call; what they add up to is held to the packing's own size.
class ArgumentChecks {
 public:
  // With `bytes`, an input of torch.uint8 is taken too.
  ArgumentChecks(const Types& types, const char* op, const Tensor& x, const Tensor& packed, bool bytes = false)
      : x_(x), op_(op), type_(packed.defined() ? packed.scalar_type() : ScalarType::Undefined) {
    expect(packed.defined(), "packed weights, got none");
    expect(x.dim() == 4, "input of shape (batch, channels, height, width), got ", x.dim(), " dimensions");
    expect(type_ == types.a || type_ == types.b, "packed weights of type ", types.text, ", got ", dtype_text(type_));
    const ScalarType given = x.scalar_type();
    expect(given == type_ || (bytes && given == ScalarType::Byte), "input of type ", dtype_text(type_),
           ", like the packed weights, got ", dtype_text(given));
    expect(same_device(x, packed), "input on ", device_text(packed), ", like the packed weights, got one on ",
           device_text(x));
    stored("input", x);
  }

  template <class... Parts>
  void expect(bool ok, const Parts&... parts) const {
    check(ok, "mobilevit_fast.", op_, ": expected ", parts..., " (x.shape=", shape_text(x_), ")");
  }

  // Elements that are there to be read.
  void stored(const char* name, const Tensor& tensor) const {
    if (is_stored(tensor)) return;
    expect(false, name, " with memory for its shape ", shape_text(tensor), ", got one whose storage was resized to ",
           storage_bytes(tensor), " bytes");
  }

  // Each at least 1.
  template <class Sizes>
  void sizes(const Sizes& given) const {
    for (const int64_t size : given) expect(size > 0, "sizes of weights of at least 1, got ", size);
  }

  // Packed weights of so many bytes, in the order that the text names.
  template <class... Order>
  void packed(const Tensor& given, int64_t bytes, int64_t row_bytes, const Order&... order) const {
    const int64_t number = type_ == ScalarType::Float ? 4 : 2;
    const int64_t rows = packed_rows(bytes, row_bytes), numbers = row_bytes / number;
    expect(given.dim() == 2 && given.size(0) == rows && given.size(1) == numbers && given.is_contiguous(),
           "packed weights of shape (", rows, ", ", numbers, "), dense, as ", op_, " packs them for ", order...,
           ", got ", shape_text(given), given.is_contiguous() ? "" : ", not dense");
    stored("packed weights", given);
    expect(reinterpret_cast<uintptr_t>(given.const_data_ptr()) % 16 == 0,
           "packed weights at an address that is a multiple of 16");
  }

  void channels(int64_t wanted) const {
    expect(x_.size(1) == wanted, "input of ", wanted, " channels, got ", x_.size(1));
  }
  void pixels() const { expect(x_.size(2) > 0 && x_.size(3) > 0, "an image of at least one pixel, got none"); }

  // Another image batch beside the input, of so many channels.
  void second(const Tensor& x2, int64_t channels) const {
    expect(x2.dim() == 4 && x2.size(0) == x_.size(0) && x2.size(1) == channels && x2.size(2) == x_.size(2) &&
               x2.size(3) == x_.size(3),
           "second input of shape (", x_.size(0), ", ", channels, ", ", x_.size(2), ", ", x_.size(3), "), got ",
           shape_text(x2));
    expect(x2.scalar_type() == x_.scalar_type() && same_device(x2, x_), "second input of type ",
           dtype_text(x_.scalar_type()), " on ", device_text(x_), ", like the input, got ",
           dtype_text(x2.scalar_type()), " on ", device_text(x2));
    stored("second input", x2);
  }

  void pair(const char* name, const std::vector<int64_t>& values, int64_t least) const {
    expect(values.size() == 2, "two values of ", name, ", got ", values.size());
    expect(values[0] >= least && values[1] >= least, name, " of at least ", least, " in both directions, got [",
           values[0], ", ", values[1], "]");
    // Positions in the padded image are then less than 2^63.
    expect(values[0] < kMaxPixels && values[1] < kMaxPixels, name, " of less than 2^61 in both directions, got [",
           values[0], ", ", values[1], "]");
  }

  Activation activation(const char* name, const std::string& value) const {
    if (value == "none") return Activation::none;
    if (value == "relu") return Activation::relu;
    expect(value == "silu", name, " none, relu or silu, got '", value, "'");
    return Activation::silu;
  }

  // Checks the geometry; `out_h` and `out_w` receive the size of the result.
  Window window(int64_t kernel_h, int64_t kernel_w, const std::vector<int64_t>& stride,
                const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation, int64_t& out_h,
                int64_t& out_w) const {
    pair("stride", stride, 1);
    pair("padding", padding, 0);
    pair("dilation", dilation, 1);
    const auto room = [&](int64_t size, int64_t kernel, int i) {
      expect(size < kMaxPixels, "an input of fewer than 2^61 rows and columns, got ", size);
      return size == 0 ? -1 : size + 2 * padding[i] - 1 - product_of(dilation[i], kernel - 1);
    };
    const int64_t room_h = room(x_.size(2), kernel_h, 0), room_w = room(x_.size(3), kernel_w, 1);
    expect(room_h >= 0 && room_w >= 0, "an input that holds the ", kernel_h, "x", kernel_w,
           " window at least once, got one it does not fit");
    out_h = room_h / stride[0] + 1, out_w = room_w / stride[1] + 1;
    return {kernel_h, kernel_w, stride[0], stride[1], padding[0], padding[1], dilation[0], dilation[1]};
  }

  // An inverted residual: its window, padded to keep the size at stride 1, and what it adds.
  std::vector<int64_t> same_padding(int64_t kernel_h, int64_t kernel_w, const std::vector<int64_t>& dilation) const {
    expect(kernel_h % 2 == 1 && kernel_w % 2 == 1, "a depthwise window of odd size, got ", kernel_h, "x", kernel_w);
    pair("dilation", dilation, 1);
    return {product_of((kernel_h - 1) / 2, dilation[0]), product_of((kernel_w - 1) / 2, dilation[1])};
  }
  void residual(bool adds, int64_t outputs, const std::vector<int64_t>& stride) const {
    expect(!adds || (outputs == x_.size(1) && stride[0] == 1 && stride[1] == 1),
           "stride 1 and as many outputs as inputs for a residual, got ", outputs, " outputs, stride [", stride[0],
           ", ", stride[1], "]");
  }

  // Atrous spatial pyramid pooling: a branch for each rate, and a projection that sees these and two more.
  void rates(const std::vector<int64_t>& rates, int64_t count, int64_t features, int64_t projected) const {
    expect(!rates.empty() && static_cast<int64_t>(rates.size()) == count, "one rate or more, for each of the ", count,
           " atrous weights one, got ", rates.size());
    for (const int64_t rate : rates) expect(rate > 0, "rates of at least 1, got ", rate);
    expect(projected == product_of(count + 2, features), "a projection of ", product_of(count + 2, features),
           " features, got one of ", projected);
  }

  ScalarType type() const { return type_; }

 protected:
  static constexpr int64_t kMaxPixels = int64_t{1} << 61;

  const Tensor& x_;

 private:
  const char* op_;
  ScalarType type_;
};

}  // namespace mobilevit_fast
