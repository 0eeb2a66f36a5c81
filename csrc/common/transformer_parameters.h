// Parameters of a block's stack of transformer layers, as both libraries check them.
#pragma once

#include "arguments.h"

namespace mobilevit_fast {

// Input and output convolution, layers stacked along the first dimension, and the norm behind them.
struct TransformerParameters {
  const Tensor& in;
  const OptionalTensor& in_bias;
  const Tensor &norm1, &norm1_bias, &qkv;
  const OptionalTensor& qkv_bias;
  const Tensor &proj, &proj_bias, &norm2, &norm2_bias, &fc1, &fc1_bias, &fc2, &fc2_bias, &norm, &norm_bias, &out;
  const OptionalTensor &out_scale, &out_bias;

  void check(const ParameterChecks& parameters) const {
    parameters.rank("in weight", in, 4);
    parameters.rank("fc1 weight", fc1, 3);
    parameters.rank("out weight", out, 4);
    const int64_t width = in.size(0), outputs = out.size(0), layers = fc1.size(0), hidden = fc1.size(1);
    const int64_t qkv_width = product_of(3, width);
    parameters.parameter("in weight", in, {width, in.size(1), 1, 1}, false);
    parameters.parameter("in bias", in_bias, {width});
    parameters.parameter("norm1 weight", norm1, {layers, width}, true);
    parameters.parameter("norm1 bias", norm1_bias, {layers, width}, true);
    parameters.parameter("qkv weight", qkv, {layers, qkv_width, width}, false);
    parameters.parameter("qkv bias", qkv_bias, {layers, qkv_width});
    parameters.parameter("proj weight", proj, {layers, width, width}, false);
    parameters.parameter("proj bias", proj_bias, {layers, width}, true);
    parameters.parameter("norm2 weight", norm2, {layers, width}, true);
    parameters.parameter("norm2 bias", norm2_bias, {layers, width}, true);
    parameters.parameter("fc1 weight", fc1, {layers, hidden, width}, false);
    parameters.parameter("fc1 bias", fc1_bias, {layers, hidden}, true);
    parameters.parameter("fc2 weight", fc2, {layers, width, hidden}, false);
    parameters.parameter("fc2 bias", fc2_bias, {layers, width}, true);
    parameters.parameter("norm weight", norm, {width}, true);
    parameters.parameter("norm bias", norm_bias, {width}, true);
    parameters.parameter("out weight", out, {outputs, width, 1, 1}, false);
    parameters.parameter("out scale", out_scale, {outputs});
    parameters.parameter("out bias", out_bias, {outputs});
  }
};

}  // namespace mobilevit_fast
