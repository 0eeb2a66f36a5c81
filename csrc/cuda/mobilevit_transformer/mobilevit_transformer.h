// The transformer stack of a MobileViT block (arXiv 2110.02178, section 3.1) on a GPU: parameters, choice, entry
// points.
#pragma once

#include "cuda/runtime.h"
#include "cuda/sizes.h"

namespace mobilevit_fast::cuda {

// What there are kernels for.
constexpr int kMaxHeadDim = 64, kMaxFeatures = 256;

// Images are dense channels_last; channels, features, hidden and outputs are multiples of 8, the image is one of the
// patch, and a head's features are an even number. Weights are packed in fragments (fragments.h): (layers, inputs / 16,
// outputs / 16, lanes), sizes rounded up, zero where there is nothing; vectors are float32, padded with zeros to a
// multiple of 16. The outputs of qkv are those of one head after the other: query, key, value, each padded to a
// multiple of 8 and together to one of 16.
struct NormVectors {
  const Float2 *weight, *bias;
};
struct MobileViTTransformerParams {
  const void* x;  // (batch, height, width, channels)
  void* y;        // (batch, height, width, outputs)
  const Bytes16 *in_weight, *qkv_weight, *proj_weight, *fc1_weight, *fc2_weight, *out_weight;
  const Float2 *in_bias, *qkv_bias, *proj_bias, *fc1_bias, *fc2_bias, *out_scale, *out_bias;
  NormVectors norm1, norm2, norm;
  int batch, height, width, channels, features, hidden, outputs, heads, layers, patch_h, patch_w;
  float eps, score_scale;  // log2(e) / sqrt(features of a head)
  Activation mlp_activation, out_activation;
  int head_group;  // heads whose keys and values are in shared memory at a time

  // Of the kernels for the whole stack: whether a warp has its tokens to itself; else sequences that a block has.
  bool by_warps;
  int sequences;

  // Of the kernel for one layer: the launch's number, 0 to layers; tokens of a block; keys at a time; what passes from
  // launch to launch. No launch writes what it reads. It keeps (sequences, tokens, features) and (3, sequences, heads,
  // tokens, head_pitch) elements of x's type.
  int launch, rows, keys;
  const void *residual_in, *qkv_in;
  void *residual_out, *qkv_out;

  // Of the kernel for compute capability 9.0 (sm90/transformer_stack_sm90.h): its weights, or nullptr; its tiles of 128
  // tokens; blocks; 1 / tokens in a row of the image.
  const Bytes16* stream;
  int tiles, blocks;
  float inverse_columns;

  // What follows from the sizes, by `complete`.
  int tokens, positions, all_sequences, head_dim, head_tiles, head_pairs;

  void complete() {
    tokens = height / patch_h * (width / patch_w), positions = patch_h * patch_w, all_sequences = batch * positions;
    head_dim = features / heads, head_tiles = ceil_div(head_dim, kMatrixColumns);
    head_pairs = ceil_div(3 * head_tiles, 2);
  }

  // Elements of a head's query, key or value in memory; from row to row in shared memory.
  MVF_HOST_DEVICE int head_width() const { return head_tiles * kMatrixColumns; }
  MVF_HOST_DEVICE int head_pitch() const { return row_pitch(head_width()); }

  MVF_HOST_DEVICE int64_t residual_numbers() const { return static_cast<int64_t>(all_sequences) * tokens * features; }
  MVF_HOST_DEVICE int64_t qkv_numbers() const { return qkv_at(3, 0, 0, 0); }
  // Where the query (part 0), key (1) or value (2) of a token begins.
  MVF_HOST_DEVICE int64_t qkv_at(int part, int sequence, int head, int token) const {
    const int64_t row = (static_cast<int64_t>(part) * all_sequences + sequence) * heads + head;
    return (row * tokens + token) * head_width();
  }

  // The pixel of a token: they are the same, only in another order.
  MVF_HOST_DEVICE int64_t pixel(int sequence, int token) const {
    const int image = sequence / positions, position = sequence % positions, columns = width / patch_w;
    const int row = token / columns * patch_h + position / patch_w;
    const int column = token % columns * patch_w + position % patch_w;
    return (static_cast<int64_t>(image) * height + row) * width + column;
  }
};

// Chooses the kernel and its tiles for the current device: with `rows` 0 one for the whole stack, else the one for a
// layer. False where none holds so much.
template <class T>
bool choose_transformer(MobileViTTransformerParams& params);

// Launch one of the kernels for the whole stack, or the one for a layer; cudaErrorInvalidValue where there is none that
// holds it (mobilevit_transformer_tiles.h).
template <class T>
cudaError_t mobilevit_transformer_warps(const MobileViTTransformerParams& params, cudaStream_t stream);
template <class T>
cudaError_t mobilevit_transformer_stack(const MobileViTTransformerParams& params, cudaStream_t stream);
template <class T>
cudaError_t mobilevit_transformer_layer(const MobileViTTransformerParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
