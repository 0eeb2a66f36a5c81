// Depthwise convolution on a GPU: parameters of the kernel, entry point.
#pragma once

#include "cuda/runtime.h"
#include "cuda/sizes.h"

namespace mobilevit_fast::cuda {

// Images are dense; channels are a multiple of 8. The weight is (kernel * kernel, channels) in float32, scale and bias
// (channels,) too; all are read in pairs.
struct DepthwiseConv2dParams {
  const void* x;  // (batch, height, width, channels)
  void* y;        // (batch, out_h, out_w, channels)
  const Float2 *weight, *scale, *bias;
  int batch, height, width, channels, out_h, out_w, padding, dilation;
  Activation activation;
};

// Square tiles of output pixels, and channels of a block.
constexpr int kSmallTile = 8, kLargeTile = 16, kDepthwiseChannels = 2 * kWarpSize;

// Launches the kernel for this square window with the tiles that suit the chip; cudaErrorInvalidValue where there is
// none or the grid would be too large.
template <class T>
cudaError_t depthwise_conv2d(const DepthwiseConv2dParams& params, int kernel, int stride, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
