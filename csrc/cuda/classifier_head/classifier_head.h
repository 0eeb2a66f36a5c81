// The first half of a classifier head on a GPU: entry point, and how it is cut into blocks.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/runtime.h"
#include "cuda/sizes.h"

namespace mobilevit_fast::cuda {

// Images are dense in channels_last order, channels a multiple of 8. Weights, scale and bias are packed as those of a
// 1x1 Conv2dBiasActParams.
struct ClassifierHeadParams {
  const void* x;  // (batch, pixels, channels)
  void* mean;     // (batch, outputs)
  const Bytes16* weight;
  const Float2 *scale, *bias;
  int batch, pixels, channels, outputs;
  int rows, slices;  // tiles of 16 pixels that are multiplied at a time; blocks that share an image's outputs
  Activation activation;
};

constexpr int kClassifierHeadChannels = 2560;  // at most: 16 pixels of them lie in the shared memory of every GPU
constexpr int kClassifierHeadPairs = 256;      // of output channels, 16 each, that a block has at most
constexpr int kClassifierHeadWarps = 8;

// Blocks that take all outputs of an image read it once; where images are few, several share its outputs.
inline void choose_classifier_head_tile(ClassifierHeadParams& p, int processors) {
  const int pairs = (p.outputs + kPairColumns - 1) / kPairColumns;
  const int least = (pairs + kClassifierHeadPairs - 1) / kClassifierHeadPairs;
  const int most = (pairs + kClassifierHeadWarps - 1) / kClassifierHeadWarps;
  const int wanted = std::min(most, (processors + p.batch - 1) / p.batch);
  p.rows = p.channels <= 512 ? 4 : 1;
  p.slices = std::max(least, wanted);
}

// Launches the kernel of params.rows; cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t classifier_head(const ClassifierHeadParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
