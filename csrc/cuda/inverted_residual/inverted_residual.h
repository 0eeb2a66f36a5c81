// Inverted residual and depthwise separable convolution on a GPU: parameters of the kernels, entry point.
#pragma once

#include "cuda/runtime.h"
#include "cuda/sizes.h"

namespace mobilevit_fast::cuda {

constexpr int kWindow = 3;
constexpr int kChunk = 32;  // expanded channels at a time
constexpr int kChunkPairs = kChunk / 2;
constexpr int kDepthwisePieces = 3;  // of 16 bytes: the window of a channel

// Images are dense channels_last; channels, expanded and outputs are multiples of 8. Weights are packed in fragments
// (fragments.h), zero where there is nothing: expand_weight (expanded / 32, channels / 16, 2, lanes), project_weight
// (expanded / 16, outputs / 16, lanes), each size rounded up. Of a channel's depthwise weight a tap takes a word, whose
// other half is zero: the lower one of odd channels, the upper one of even ones; three words behind the 9 are zero.
// Scales and biases are float32, padded with zeros to the rounded sizes and read in pairs.
struct InvertedResidualParams {
  const void* x;  // (batch, height, width, channels)
  void* y;        // (batch, out_h, out_w, outputs)
  const Bytes16 *expand_weight, *depthwise_weight, *project_weight;
  const Float2 *expand_scale, *expand_bias, *depthwise_scale, *depthwise_bias, *project_scale, *project_bias;
  int batch, height, width, channels, expanded, outputs, out_h, out_w, padding, dilation;
  bool residual;
  Activation activation, project_activation;  // of expansion and depthwise convolution; of the result
};

// How many entries the arrays have.
struct InvertedResidualSizes {
  int64_t x, y, expand_weight, expand_affine, depthwise_weight, depthwise_affine, project_weight, project_affine;

  explicit InvertedResidualSizes(const InvertedResidualParams& p) {
    const int64_t depth = ceil_div(p.channels, kMatrixDepth), chunks = ceil_div(p.expanded, kChunk);
    const int64_t columns = ceil_div(p.outputs, 2 * kMatrixColumns);  // pairs of tiles
    x = int64_t{1} * p.batch * p.height * p.width * p.channels;
    y = int64_t{1} * p.batch * p.out_h * p.out_w * p.outputs;
    expand_weight = chunks * depth * (kChunk / (2 * kMatrixColumns)) * kWarpSize;
    expand_affine = depthwise_affine = chunks * kChunkPairs;
    depthwise_weight = chunks * kChunk * kDepthwisePieces;
    project_weight = chunks * (kChunk / kMatrixDepth) * columns * kWarpSize;
    project_affine = columns * kMatrixColumns;
  }
};

// Calls visit(name, array, bytes) for every array.
template <class T, class Visit>
void visit_arrays(const InvertedResidualParams& p, bool expands, const Visit& visit) {
  const InvertedResidualSizes size(p);
  constexpr int64_t kPair = sizeof(Float2);
  visit("x", p.x, size.x * static_cast<int64_t>(sizeof(T)));
  visit("y", p.y, size.y * static_cast<int64_t>(sizeof(T)));
  if (expands) {
    visit("expand_weight", p.expand_weight, size.expand_weight * static_cast<int64_t>(sizeof(Bytes16)));
    visit("expand_scale", p.expand_scale, size.expand_affine * kPair);
    visit("expand_bias", p.expand_bias, size.expand_affine * kPair);
  }
  visit("depthwise_weight", p.depthwise_weight, size.depthwise_weight * static_cast<int64_t>(sizeof(Bytes16)));
  visit("depthwise_scale", p.depthwise_scale, size.depthwise_affine * kPair);
  visit("depthwise_bias", p.depthwise_bias, size.depthwise_affine * kPair);
  visit("project_weight", p.project_weight, size.project_weight * static_cast<int64_t>(sizeof(Bytes16)));
  visit("project_scale", p.project_scale, size.project_affine * kPair);
  visit("project_bias", p.project_bias, size.project_affine * kPair);
}

// Shared memory of the smallest block. Channels times dilation squared have to be less than 2^24.
template <class T>
size_t inverted_residual_bytes(const InvertedResidualParams& params, bool expands, int stride);

// Launches the kernel with the tiles that suit the chip; cudaErrorInvalidValue where the grid would be too large.
template <class T>
cudaError_t inverted_residual(const InvertedResidualParams& params, bool expands, int stride, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
