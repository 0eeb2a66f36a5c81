// How large each operator's packed weights are: sizes of the weights in the order of its schema, then what else packing
// depends on. Kernels, which are compiled once per instruction set, do not include this.
#pragma once

#include "cpu/aspp/aspp.h"
#include "cpu/conv2d_bias_act/conv2d_bias_act.h"
#include "cpu/gemm/products.h"
#include "cpu/inverted_residual/inverted_residual.h"

namespace mobilevit_fast::cpu {

struct AsppSizes {
  static constexpr const char* kOp = "aspp";
  int64_t features, channels, rates, outputs, projected;

  Products products(bool) const { return Products(); }
  int64_t packed_words(const Products&) const {
    const int64_t branches = sum_of(product_of(2, panel_floats(channels, features)),
                                    product_of(rates, panel_floats(product_of(kAtrousTaps, channels), features)));
    return sum_of(branches, sum_of(panel_floats(projected - features, outputs), panel_floats(features, outputs)));
  }
};

struct ClassifierHeadSizes {
  static constexpr const char* kOp = "classifier_head";
  int64_t expanded, channels, classes;

  Products products(bool bfloat16) const { return Products(bfloat16, {channels, expanded}); }
  int64_t packed_words(const Products& products) const {
    return sum_of(panel_floats(channels / products.factors, expanded),
                  panel_floats(expanded / products.factors, classes));
  }
};

// With the window that the weights are multiplied in.
struct Conv2dSizes {
  static constexpr const char* kOp = "conv2d_bias_act";
  int64_t outputs, channels, kernel_h, kernel_w;
  int64_t stride_h, stride_w, dilation_h, dilation_w;

  Window window() const { return {kernel_h, kernel_w, stride_h, stride_w, 0, 0, dilation_h, dilation_w}; }
  Products products(bool bfloat16) const { return Products::of_tiles(bfloat16, channels); }
  bool winograd(const Products& products) const {
    return products.factors == 1 && takes_winograd(outputs, channels, window());
  }
  int64_t packed_words(const Products& products) const {
    const int64_t taps = winograd(products) ? kWinogradEntries : product_of(kernel_h, kernel_w);
    return panel_floats(product_of(taps, channels) / products.factors, outputs);
  }
};

struct DepthwiseSizes {
  static constexpr const char* kOp = "depthwise_conv2d";
  int64_t channels, kernel_h, kernel_w;

  Products products(bool) const { return Products(); }
  // Room for a window of float32; one of bfloat16 fills half of it.
  int64_t packed_words(const Products&) const {
    return product_of(sum_of(product_of(kernel_h, kernel_w), 2), channels);
  }
};

struct InvertedResidualSizes {
  static constexpr const char* kOp = "inverted_residual";
  int64_t expanded, channels, kernel_h, kernel_w, outputs;

  Products products(bool bfloat16) const { return Products(bfloat16, {channels, expanded}); }
  int64_t packed_words(const Products& products) const {
    return sum_of(sum_of(panel_floats(channels / products.factors, expanded),
                         depthwise_floats(product_of(kernel_h, kernel_w), expanded)),
                  panel_floats(expanded / products.factors, outputs));
  }
};

struct SeparableSizes {
  static constexpr const char* kOp = "depthwise_separable_conv2d";
  int64_t channels, kernel_h, kernel_w, outputs;

  Products products(bool bfloat16) const { return Products(bfloat16, {channels}); }
  int64_t packed_words(const Products& products) const {
    return sum_of(depthwise_floats(product_of(kernel_h, kernel_w), channels),
                  panel_floats(channels / products.factors, outputs));
  }
};

struct MobileViTTransformerSizes {
  static constexpr const char* kOp = "mobilevit_transformer";
  int64_t width, channels, layers, hidden, outputs;

  Products products(bool bfloat16) const { return Products(bfloat16, {channels, width, hidden}); }
  int64_t packed_words(const Products& products) const {
    const int64_t depth = width / products.factors;
    const RowGroups groups = products.row_groups();
    int64_t layer = product_of(4, width);
    for (const int64_t rows : {product_of(3, width), width, hidden}) {
      layer = sum_of(layer, row_group_floats(depth, rows, groups));
    }
    layer = sum_of(layer, row_group_floats(hidden / products.factors, width, groups));
    const int64_t ends =
        sum_of(row_group_floats(channels / products.factors, width, groups), row_group_floats(depth, outputs, groups));
    return sum_of(sum_of(ends, product_of(layers, layer)), product_of(2, width));
  }
};

}  // namespace mobilevit_fast::cpu
