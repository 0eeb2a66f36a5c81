// Dense convolution of channels_last images, over one tensor or over the channels of two, with scale, bias and
// activation.
#pragma once

#include "conv2d_bias_act.h"
#include "conv2d_sums.h"

namespace mobilevit_fast::cuda {

// Four neighbouring outputs of a lane, in two tiles of accumulators, after scale, bias and activation.
struct Four {
  float value[4];
};
struct alignas(8) Bytes8 {
  uint32_t word[2];
};

// Scales or biases of a lane's four outputs.
MVF_DEVICE void load_pairs(const Float2* from, int channel, Float2 (&values)[2]) {
  values[0] = load_global(from + channel / 2), values[1] = load_global(from + channel / 2 + 1);
}

MVF_DEVICE Four finish(const float* first, const float* second, const Float2 (&scale)[2], const Float2 (&bias)[2],
                       Activation activation) {
  return {{activate(activation, first[0] * scale[0].x + bias[0].x),
           activate(activation, first[1] * scale[0].y + bias[0].y),
           activate(activation, second[0] * scale[1].x + bias[1].x),
           activate(activation, second[1] * scale[1].y + bias[1].y)}};
}

// Writes those that there are; whole pixels of 16 outputs are whole sectors of memory.
template <class T>
MVF_DEVICE void store_four(T* y, const Four& four, int channel, int channels, int pitch) {
  if ((channels | pitch) % 4 == 0) {
    const Bytes8 both{{pack<T>(four.value[0], four.value[1]), pack<T>(four.value[2], four.value[3])}};
    store_global(reinterpret_cast<Bytes8*>(y), both);
    return;
  }
  MVF_UNROLL
  for (int i = 0; i < 4; ++i) {
    if (channel + i < channels) store_global(y + i, from_float<T>(four.value[i]));
  }
}

template <class T, int kVariant>
struct Conv2dBiasAct {
  using Params = Conv2dBiasActParams;
  using Product = Conv2dSums<T, kVariant>;

  static constexpr int kThreads = Product::kThreads;
  static unsigned blocks(const Params& p) { return static_cast<unsigned>(conv2d_blocks(p.shape, p.tile)); }
  static size_t shared_bytes(const Params& p) { return Product::shared_bytes(p); }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const Conv2dShape& s = p.shape;
    const size_t pixels = static_cast<size_t>(s.batch) * s.height * s.width, pairs = ceil_div(s.outputs, 16);
    visit("x", p.x, pixels * s.channels * sizeof(T));
    if (s.channels2 > 0) visit("x2", p.x2, pixels * s.channels2 * sizeof(T));
    const size_t last = static_cast<size_t>(s.batch) * s.out_h * s.out_w - 1;
    visit("y", p.results.y, (last * p.results.pitch + s.outputs) * sizeof(T));
    visit("weight", p.weight, conv2d_units(s) * s.kernel_h * s.kernel_w * pairs * kWarpSize * sizeof(Bytes16));
    visit("scale", p.scale, pairs * 16 * sizeof(float));
    visit("bias", p.bias, pairs * 16 * sizeof(float));
    if (p.results.image_bias) visit("image_bias", p.results.image_bias, s.batch * pairs * 16 * sizeof(float));
  }

  static MVF_DEVICE void run(const Params& p) {
    const int slices = ceil_div(p.shape.outputs, Product::kOutputs);
    const typename Product::Tile tile(p, block_index() / slices, block_index() % slices * Product::kOutputs);
    SharedMemory shared;
    const typename Product::Work work(p, shared);
    typename Product::Sums sums = {};
    Product::add(p, tile, work, sums);
    if (Product::warp_k() == 0) store(p, tile, sums);
  }

 private:
  // The image's own biases. Most tiles have pixels of one image only.
  static MVF_DEVICE void load_own(const Params& p, const typename Product::Tile& tile, int pixel, int channel,
                                  Float2 (&values)[2]) {
    const int image = p.tile.images == 1 ? tile.image : pixel / (p.shape.out_h * p.shape.out_w);
    const int64_t first = static_cast<int64_t>(image) * round_up(p.shape.outputs, kPairColumns) + channel;
    const Float2* from = p.results.image_bias + first / 2;
    values[0] = load_written(from), values[1] = load_written(from + 1);
  }

  static MVF_DEVICE void store(const Params& p, const typename Product::Tile& tile,
                               const typename Product::Sums& sums) {
    const int lane = Product::lane(), outputs = p.shape.outputs, pitch = p.results.pitch;
    int pixels[2 * Product::kRows];
    MVF_UNROLL
    for (int i = 0; i < 2 * Product::kRows; ++i) pixels[i] = tile.pixel(p, Product::first_pixel() + i * 8 + lane / 4);
    MVF_UNROLL
    for (int n = 0; n < Product::kColumns; n += 2) {
      const int channel = tile.output + Product::first_output() + n * kMatrixColumns + lane % 4 * 4;
      if (channel >= outputs) break;
      Float2 scale[2], bias[2];
      load_pairs(p.scale, channel, scale), load_pairs(p.bias, channel, bias);
      MVF_UNROLL
      for (int i = 0; i < 2 * Product::kRows; ++i) {
        if (pixels[i] < 0) continue;
        if (p.results.image_bias != nullptr) load_own(p, tile, pixels[i], channel, bias);
        const int half = i % 2 * 2;
        const Four four = finish(sums[i / 2][n] + half, sums[i / 2][n + 1] + half, scale, bias, p.activation);
        T* y = static_cast<T*>(p.results.y) + static_cast<int64_t>(pixels[i]) * pitch + channel;
        store_four(y, four, channel, outputs, pitch);
      }
    }
  }
};

// Calls visit(K()) with the kernel of a variant; false, calling nothing, where there is none.
template <class T, int kVariant = 0, class Visit>
bool with_conv2d_kernel(int variant, const Visit& visit) {
  if constexpr (kVariant < kConv2dVariantCount) {
    if (variant == kVariant) {
      visit(Conv2dBiasAct<T, kVariant>());
      return true;
    }
    return with_conv2d_kernel<T, kVariant + 1>(variant, visit);
  }
  return false;
}

}  // namespace mobilevit_fast::cuda
