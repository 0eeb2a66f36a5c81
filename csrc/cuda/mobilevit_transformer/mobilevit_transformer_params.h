// The linear layers and norms of a transformer stack, and its arrays.
#pragma once

#include <initializer_list>

#include "cuda/mma/tokens.h"
#include "mobilevit_transformer.h"

namespace mobilevit_fast::cuda {

static_assert(kMaxFeatures <= kMaxNormed);

// The linear layers of the stack.
struct TransformerLayers {
  const MobileViTTransformerParams& p;

  MVF_HOST_DEVICE Linear in() const { return linear(p.in_weight, p.in_bias, p.channels, p.features, 0); }
  MVF_HOST_DEVICE Linear qkv(int layer) const {
    return linear(p.qkv_weight, p.qkv_bias, p.features, qkv_outputs(p), layer);
  }
  MVF_HOST_DEVICE Linear proj(int layer) const {
    return linear(p.proj_weight, p.proj_bias, p.features, p.features, layer);
  }
  MVF_HOST_DEVICE Linear fc1(int layer) const { return linear(p.fc1_weight, p.fc1_bias, p.features, p.hidden, layer); }
  MVF_HOST_DEVICE Linear fc2(int layer) const { return linear(p.fc2_weight, p.fc2_bias, p.hidden, p.features, layer); }
  MVF_HOST_DEVICE Linear out() const {
    Linear layer = linear(p.out_weight, p.out_bias, p.features, p.outputs, 0);
    layer.scale = p.out_scale;
    return layer;
  }

  // The stack as 2 * layers + 1 steps. Each adds a layer of what is in shared memory to the residual stream: 0 the
  // convolution in, 2 l + 1 the projection of layer l's context, 2 l + 2 the end of its MLP. Then it norms the stream.
  // What follows is `widened`, but for the steps 2 l that begin a layer: query, key and value.
  MVF_HOST_DEVICE int last_step() const { return 2 * p.layers; }
  MVF_HOST_DEVICE bool begins_layer(int step) const { return step % 2 == 0 && step < last_step(); }
  MVF_HOST_DEVICE Linear update(int step) const {
    if (step == 0) return in();
    return step % 2 == 1 ? proj(step / 2) : fc2(step / 2 - 1);
  }
  MVF_HOST_DEVICE Norm norm(int step) const {
    if (step == last_step()) return norm(p.norm, 0);
    return step % 2 == 0 ? norm(p.norm1, step / 2) : norm(p.norm2, step / 2);
  }
  // The beginning of the MLP, or the convolution out.
  struct Widened {
    Linear layer;
    int width;
    Activation activation;
  };
  MVF_HOST_DEVICE Widened widened(int step) const {
    if (step == last_step()) return {out(), p.outputs, p.out_activation};
    return {fc1(step / 2), p.hidden, p.mlp_activation};
  }

  static MVF_HOST_DEVICE int qkv_outputs(const MobileViTTransformerParams& p) {
    return p.heads * p.head_pairs * kPairColumns;
  }

 private:
  static MVF_HOST_DEVICE Linear linear(const Bytes16* weight, const Float2* bias, int inputs, int outputs, int layer) {
    const Linear first{weight, nullptr, bias, inputs, ceil_div(outputs, kPairColumns)};
    return {weight + layer * first.weight_pieces(), nullptr, bias + layer * first.pairs * (kPairColumns / 2), inputs,
            first.pairs};
  }
  MVF_HOST_DEVICE Norm norm(const NormVectors& vectors, int layer) const {
    const int size = round_up(p.features, kPairColumns) / 2;
    return {vectors.weight + layer * size, vectors.bias + layer * size, p.features, p.eps};
  }
};

// Calls visit(name, pointer, bytes) for every array in global memory of a kernel.
template <class T, class Visit>
void transformer_arrays(const MobileViTTransformerParams& p, bool layered, const Visit& visit) {
  const TransformerLayers layers{p};
  const auto numbers = [&](const char* name, const void* array, int64_t count) {
    visit(name, array, static_cast<size_t>(count) * sizeof(T));
  };
  const auto vector = [&](const char* name, const Float2* array, int size, int count) {
    visit(name, array, static_cast<size_t>(count) * round_up(size, kPairColumns) * sizeof(float));
  };
  const auto norm = [&](const char* weight, const char* bias, const NormVectors& vectors, int count) {
    vector(weight, vectors.weight, p.features, count), vector(bias, vectors.bias, p.features, count);
  };
  const auto linear = [&](const char* weight, const char* bias, const Linear& layer, int count) {
    visit(weight, layer.weight, static_cast<size_t>(count) * layer.weight_pieces() * sizeof(Bytes16));
    vector(bias, layer.bias, layer.pairs * kPairColumns, count);
  };
  const int64_t pixels = static_cast<int64_t>(p.batch) * p.height * p.width;
  numbers("x", p.x, pixels * p.channels);
  numbers("y", p.y, pixels * p.outputs);
  linear("in_weight", "in_bias", layers.in(), 1);
  norm("norm1_weight", "norm1_bias", p.norm1, p.layers);
  linear("qkv_weight", "qkv_bias", layers.qkv(0), p.layers);
  linear("proj_weight", "proj_bias", layers.proj(0), p.layers);
  norm("norm2_weight", "norm2_bias", p.norm2, p.layers);
  linear("fc1_weight", "fc1_bias", layers.fc1(0), p.layers);
  linear("fc2_weight", "fc2_bias", layers.fc2(0), p.layers);
  norm("norm_weight", "norm_bias", p.norm, 1);
  linear("out_weight", "out_bias", layers.out(), 1);
  vector("out_scale", p.out_scale, p.outputs, 1);
  if (!layered) return;
  numbers("residual_in", p.residual_in, p.residual_numbers());
  numbers("residual_out", p.residual_out, p.residual_numbers());
  numbers("qkv_in", p.qkv_in, p.qkv_numbers());
  numbers("qkv_out", p.qkv_out, p.qkv_numbers());
}

}  // namespace mobilevit_fast::cuda
