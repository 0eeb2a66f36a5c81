// What the bindings of operators have in common that consist of dense convolutions.
#pragma once

#include "conv2d_bias_act.h"
#include "conv2d_choices.h"
#include "cuda/binding.h"

namespace mobilevit_fast::cuda {

// A product's tile, or what a test of the emulator asks for: {variant}, or {variant, images, height, width}.
inline Conv2dTile conv2d_tile_for(const Conv2dShape& shape) {
  const int processors = current_chip().processors;
#if defined(MVF_EMULATED)
  const std::vector<int>& asked = emulator::Log::get().tile;
  if (asked.size() == 1) return conv2d_best_tile(shape, asked[0], processors);
  if (asked.size() == 4) return conv2d_tile(shape, asked[0], asked[1], asked[2], asked[3]);
#endif
  static Conv2dChoices choices;
  return choices.get(shape, processors, choose_conv2d_tile);
}

// Packed parameters of a convolution with so many steps of 16 inputs.
struct Conv2dParameters {
  const Bytes16* weight;
  const Float2 *scale, *bias;

  Conv2dParameters(PackedParts& parts, int64_t steps, int64_t outputs) {
    const int64_t pairs = sum_of(outputs, 15) / 16;
    weight = parts.take<Bytes16>(product_of(steps, pairs, kWarpSize));
    scale = parts.take<Float2>(pairs * 8), bias = parts.take<Float2>(pairs * 8);
  }
};

// Kernels keep rows and columns in 16 bits: those of the image, its padding, and the window and 64 pixels of a tile
// beyond it. Each number is looked at by itself first, so that no sum overflows.
inline void check_conv2d_reach(const Arguments& arguments, const Tensor& x, int64_t kernel_h, int64_t kernel_w,
                               const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                               const std::vector<int64_t>& dilation) {
  constexpr int64_t kMax = 1 << 15, kTilePixels = 64;
  const int64_t kernel[] = {kernel_h, kernel_w};
  const auto fits = [&](int i) {
    return x.size(2 + i) < kMax && kernel[i] < kMax && stride[i] < kMax && padding[i] < kMax && dilation[i] < kMax &&
           x.size(2 + i) + 2 * padding[i] + (kernel[i] - 1) * dilation[i] + kTilePixels * stride[i] < kMax;
  };
  arguments.expect(
      fits(0) && fits(1), "an image of fewer than 2^15 rows and columns, window, padding and a tile included, got ",
      x.size(2), "x", x.size(3), " with a window of ", kernel_h, "x", kernel_w, ", stride [", stride[0], ", ",
      stride[1], "], padding [", padding[0], ", ", padding[1], "], dilation [", dilation[0], ", ", dilation[1], "]");
}

// Launches a product over the channels of one or two dense images; where its results go, see Conv2dResults.
inline cudaError_t run_conv2d(const Arguments& arguments, ScalarType type, const void* x, const void* x2,
                              const Conv2dShape& shape, const Conv2dParameters& parameters, Activation activation,
                              const Conv2dResults& results, cudaStream_t stream) {
  Conv2dBiasActParams p{};
  p.shape = shape, p.tile = conv2d_tile_for(shape), p.activation = activation;
  p.x = x, p.x2 = x2, p.results = results;
  p.weight = parameters.weight, p.scale = parameters.scale, p.bias = parameters.bias;
  arguments.small("blocks", conv2d_blocks(shape, p.tile));
  arguments.expect(results.aligned(shape.outputs), "a result at an address that is a multiple of 8");
  return type == ScalarType::Half ? conv2d_bias_act<Half>(p, stream) : conv2d_bias_act<BFloat16>(p, stream);
}

}  // namespace mobilevit_fast::cuda
