// Dense convolution of images of few channels on a GPU: entry point.
#pragma once

#include "conv2d_input.h"
#include "cuda/runtime.h"

namespace mobilevit_fast::cuda {

// Weights are packed as those of Conv2dInput, for taps and channels (kernel_h, kernel_w, channels) as one number of
// input channels: (ceil(elements / 16), outputs / 16, lanes).
struct Conv2dStemParams {
  const void* x;  // (batch, height, width, image_channels), or (batch, image_channels, height, width) if planar
  void* y;        // (batch, out_h, out_w, outputs)
  const Bytes16* weight;
  const Float2 *scale, *bias;  // as in Conv2dBiasActParams
  Conv2dShape shape;
  int image_channels;  // or one fewer than the shape's, of which the last is then 1 inside of the image
  bool planar, bytes;  // of the image; bytes: uint8, from 0 to 255
  int tile_h, tile_w;  // output pixels of a block
  Activation activation;
};

constexpr int kConv2dStemNumbers = 64;  // of a window, at most

// Launches the kernel for windows of few elements; cudaErrorInvalidValue where they are more than kConv2dStemNumbers.
template <class T>
cudaError_t conv2d_stem(const Conv2dStemParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
