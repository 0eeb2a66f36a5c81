// A model's first convolution on GPUs of compute capability 9.0: what it takes, and its entry point.
#pragma once

#include "common/activation.h"
#include "cuda/conv2d_bias_act/conv2d_bias_act_tiles.h"
#include "cuda/device.h"
#include "cuda/runtime.h"

namespace mobilevit_fast::cuda {

constexpr int kStemSm90Outputs = 16, kStemSm90Columns = 128;  // of a tile: all of the first, so many pixels of a row
constexpr int kStemSm90WeightBytes = 2 * 2 * kWarpSize * 8;
constexpr int kStemSm90Places = 8;  // of a window: first row, last row, first column of the image beyond it or not

// y = silu(scale * conv(x) + bias): 3x3, stride 2, padding 1, of images of three channels. The bias is one for each
// place of a window in the image, so that it holds a constant which padding has not
// (mobilevit_fast/kernels/cuda/sm90/stem.py).
struct StemSm90Params {
  const void* x;              // (batch, height, width, 3), or (batch, 3, height, width) if planar
  void* y;                    // (batch, out_h, out_w, 16)
  const uint32_t* weight;     // (2 steps, 2 halves of the outputs, 32 lanes, 2)
  const float *scale, *bias;  // (16,), (kStemSm90Places, 16)
  int batch, height, width, out_h, out_w;
  bool planar, bytes;  // of the image; bytes: uint8, from 0 to 255
};

// Whether a window has the weights of these kernels; a fourth channel is constant.
inline bool stem_sm90_has(int64_t channels, int64_t outputs, int64_t kernel_h, int64_t kernel_w) {
  return kernel_h == 3 && kernel_w == 3 && (channels == 3 || channels == 4) && outputs == kStemSm90Outputs;
}

// Whether the kernels take a call. Rows of pixels are read in pieces of 8 bytes.
inline bool takes_stem_sm90(const Conv2dShape& s, Activation activation, int image_channels, const void* x) {
  const auto both = [](int down, int across, int value) { return down == value && across == value; };
  return activation == Activation::silu && stem_sm90_has(s.channels, s.outputs, s.kernel_h, s.kernel_w) &&
         image_channels == 3 && both(s.stride_h, s.stride_w, 2) && both(s.padding_h, s.padding_w, 1) &&
         both(s.dilation_h, s.dilation_w, 1) && s.width % 8 == 0 && reinterpret_cast<uintptr_t>(x) % 8 == 0;
}

template <class T>
cudaError_t stem_sm90(const StemSm90Params& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
