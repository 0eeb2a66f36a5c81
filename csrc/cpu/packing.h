// Weights in the order of the kernels (cpu/gemm/gemm_layout.h), as float32 or as pairs of bfloat16.
#pragma once

#include <functional>
#include <initializer_list>
#include <optional>

#include "common/checks.h"
#include "cpu/gemm/gemm_layout.h"
#include "cpu_isa.h"
#include "memory.h"

namespace mobilevit_fast::cpu {

// The variant that multiplies by all of these weights, and what it takes to pack them and size their packing.
struct Products {
  Isa isa;
  int64_t factors;  // in a word

  // Of float32 words, whatever the type of the weights.
  Products() : isa(active_isa()), factors(1) {}
  // Weights (outputs, channels, ...), or, of several layers, (layers, outputs, channels).
  explicit Products(std::initializer_list<std::reference_wrapper<const Tensor>> weights);
  // In tiles or of float32 words, for an operator without kernels for pairs alone.
  static Products of_tiles(const Tensor& weight);

  RowGroups row_groups() const { return multiplies_tiles(isa) ? kTileRows : kVectorRows; }
};

// Each writes one part at `target` and returns its end. Scales default to one, biases to zero.
//
// Panels of a convolution (outputs, channels, kernel height, kernel width) or a linear layer (outputs, channels); the
// products of an output follow the window, channels innermost. `factors` of them make a word and divide the channels.
float* pack_panels(const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias, int64_t factors,
                   float* target);
// The same of a 3x3 convolution by Winograd's algorithm: 4x4 entries of G g G^T in place of the window g.
float* pack_winograd(const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias, float* target);
// A depthwise convolution (channels, 1, kernel height, kernel width): (taps, padded channels), scales, biases.
float* pack_depthwise(const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias, float* target);
// Row groups of a linear layer: matrix `layer` of (layers, outputs, channels), scale and bias (layers, outputs).
float* pack_row_groups(const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias, int64_t layer,
                       const Products& products, float* target);
// Row `layer` of (layers, count), as it is.
float* pack_vector(const Tensor& values, int64_t layer, float* target);

}  // namespace mobilevit_fast::cpu
