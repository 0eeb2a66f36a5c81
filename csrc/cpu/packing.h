// Weights in the order of the kernels (cpu/gemm/gemm_layout.h), as float32 or as pairs of bfloat16.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>

#include "common/checks.h"
#include "cpu/gemm/products.h"
#include "memory.h"

namespace mobilevit_fast::cpu {

using Shape = std::initializer_list<int64_t>;

// Packs an operator's weights one after the other, of whatever strides. Each is checked before it is read: its shape,
// and the type and device of the first one; scales, biases and norms may be float32. Scales that are not given are one,
// such biases zero.
class Packing {
 public:
  // What the constructor of `Sizes` reads of weights has to be checked before: the number of dimensions.
  template <class Sizes>
  Packing(const Sizes& sizes, const Tensor& first) : Packing(sizes, first, sizes.products(is_bfloat16(first))) {}

  const Products& products() const { return products_; }

  // A convolution (outputs, channels, kernel height, kernel width) or a linear layer (outputs, channels) as panels; the
  // products of an output follow the window, channels innermost.
  void panels(const char* name, const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias,
              Shape shape);
  // A stack of convolutions, one after the other.
  void stacked_panels(const char* name, const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias,
                      Shape shape);
  // A 1x1 convolution whose inputs from `first` on have panels of their own, which alone hold the bias.
  void split_panels(const char* name, const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias,
                    Shape shape, int64_t first);
  // A 3x3 convolution by Winograd's algorithm: 4x4 entries of G g G^T in place of the window g.
  void winograd(const char* name, const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias,
                Shape shape);
  // A depthwise convolution (channels, 1, kernel height, kernel width): (taps, padded channels), scales, biases.
  void depthwise(const char* name, const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias,
                 Shape shape);
  // The same without padding, the window in its own type.
  void depthwise_as_it_is(const char* name, const Tensor& weight, const OptionalTensor& scale,
                          const OptionalTensor& bias, Shape shape);
  // Row groups of a 1x1 convolution, or of a linear layer: matrix `layer` of (layers, outputs, channels).
  void row_groups(const char* name, const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias,
                  Shape shape, int64_t layer = 0);
  // A norm's weight and bias, each as it is: vector `layer` of (layers, count), or (count,).
  void norm(const char* name, const Tensor& weight, const Tensor& bias, Shape shape, int64_t layer = 0);

  // Everything that was packed; the rest of the last row is zero.
  Tensor finish();

 private:
  template <class Sizes>
  Packing(const Sizes& sizes, const Tensor& first, const Products& products)
      : Packing(Sizes::kOp, first, products, sizes.packed_words(products),
                packed_shape(sizes, products, is_bfloat16(first))) {}
  Packing(const char* op, const Tensor& first, const Products& products, int64_t words, PackedShape shape);

  static bool is_bfloat16(const Tensor& first) { return first.scalar_type() == ScalarType::BFloat16; }
  void parameter(const std::string& name, const Tensor& tensor, Shape shape, bool float32) const;
  void convolution(const char* name, const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias,
                   Shape shape, Shape vectors) const;

  const char* op_;
  const Tensor& first_;
  Products products_;
  int64_t words_;
  Tensor packed_;
  float* target_;
};

// The number of dimensions that a weight must have before its sizes are read, none of them 0.
void check_rank(const char* op, const char* name, const Tensor& weight, int64_t dimensions);

}  // namespace mobilevit_fast::cpu
