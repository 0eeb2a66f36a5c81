// The first half of a classifier head: 1x1 expansion, scale, bias, activation and the mean over an image's pixels. A
// block takes a slice of expanded channels of one image through all its pixels; the order of the sum never changes.
#pragma once

#include "classifier_head.h"
#include "conv2d_bias_act_kernel.h"

namespace mobilevit_fast::cuda {

template <class T, int kVariant>
struct ClassifierHead {
  using Params = ClassifierHeadParams;
  using Product = Conv2dSums<T, kVariant>;
  static_assert(Product::kWarpsK == 1);

  static constexpr int kThreads = Product::kThreads, kColumns = Product::kColumns;

  static MVF_HOST_DEVICE int slices(const Params& p) { return ceil_div(p.shape.outputs, Product::kOutputs); }
  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.shape.batch * slices(p)); }
  static size_t shared_bytes(const Params& p) {
    return Product::shared_bytes(p) + shared_size<float>(Product::kWarpsM * Product::kOutputs);
  }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const Conv2dShape& s = p.shape;
    const size_t pairs = ceil_div(s.outputs, 16);
    visit("x", p.x, static_cast<size_t>(s.batch) * s.height * s.width * s.channels * sizeof(T));
    visit("mean", p.mean, static_cast<size_t>(s.batch) * s.outputs * sizeof(T));
    visit("weight", p.weight, conv2d_units(s) * pairs * kWarpSize * sizeof(Bytes16));
    visit("scale", p.scale, pairs * 16 * sizeof(float));
    visit("bias", p.bias, pairs * 16 * sizeof(float));
  }

  static MVF_DEVICE void run(const Params& p) {
    const int image = block_index() / slices(p), slice = block_index() % slices(p), lane = Product::lane();
    SharedMemory shared;
    const typename Product::Work work(p, shared);
    float* parts = shared.template take<float>(Product::kWarpsM * Product::kOutputs);
    const int tiles = ceil_div(p.shape.out_h, p.tile.height) * ceil_div(p.shape.out_w, p.tile.width);
    float total[kColumns][2] = {};  // of the warp's pixels that the lane has
    for (int i = 0; i < tiles; ++i) {
      const typename Product::Tile tile(p, image * tiles + i, slice * Product::kOutputs);
      typename Product::Sums sums = {};
      Product::add(p, tile, work, sums);
      add_pixels(p, tile, sums, total);
    }
    // Over the eight lanes that have the other pixels, and over the warps.
    MVF_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      MVF_UNROLL
      for (int h = 0; h < 2; ++h) {
        for (int mask = 4; mask < kWarpSize; mask *= 2) total[n][h] += shuffle_xor(total[n][h], mask);
        const int output = Product::first_output() + n / 2 * 16 + lane % 4 * 4 + n % 2 * 2 + h;
        if (lane < 4)
          store_shared(parts + Product::warp() % Product::kWarpsM * Product::kOutputs + output, total[n][h]);
      }
    }
    sync_block();
    for (int i = thread_index(); i < Product::kOutputs; i += kThreads) {
      const int output = slice * Product::kOutputs + i;
      if (output >= p.shape.outputs) break;
      float sum = 0.0f;
      for (int m = 0; m < Product::kWarpsM; ++m) sum += load_shared(parts + m * Product::kOutputs + i);
      const T mean = from_float<T>(sum / static_cast<float>(p.shape.out_h * p.shape.out_w));
      store_global(static_cast<T*>(p.mean) + static_cast<int64_t>(image) * p.shape.outputs + output, mean);
    }
  }

 private:
  static MVF_DEVICE void add_pixels(const Params& p, const typename Product::Tile& tile,
                                    const typename Product::Sums& sums, float (&total)[kColumns][2]) {
    const int lane = Product::lane();
    bool there[2 * Product::kRows];
    MVF_UNROLL
    for (int i = 0; i < 2 * Product::kRows; ++i) {
      there[i] = tile.pixel(p, Product::first_pixel() + i * 8 + lane / 4) >= 0;
    }
    MVF_UNROLL
    for (int n = 0; n < kColumns; n += 2) {
      const int channel = tile.output + Product::first_output() + n * kMatrixColumns + lane % 4 * 4;
      if (channel >= p.shape.outputs) break;
      const Float2 scale[2] = {load_global(p.scale + channel / 2), load_global(p.scale + channel / 2 + 1)};
      const Float2 bias[2] = {load_global(p.bias + channel / 2), load_global(p.bias + channel / 2 + 1)};
      MVF_UNROLL
      for (int i = 0; i < 2 * Product::kRows; ++i) {
        if (!there[i]) continue;
        const int half = i % 2 * 2;
        const Four four = finish(sums[i / 2][n] + half, sums[i / 2][n + 1] + half, scale, bias, p.activation);
        total[n][0] += four.value[0], total[n][1] += four.value[1];
        total[n + 1][0] += four.value[2], total[n + 1][1] += four.value[3];
      }
    }
  }
};

// Calls visit(K()) with the kernel of a variant; false, calling nothing, where there is none.
template <class T, int kNumber = 0, class Visit>
bool with_classifier_head_kernel(int variant, const Visit& visit) {
  if constexpr (kNumber < kClassifierHeadVariantCount) {
    if (variant == kConv2dVariantCount + kNumber) {
      visit(ClassifierHead<T, kConv2dVariantCount + kNumber>());
      return true;
    }
    return with_classifier_head_kernel<T, kNumber + 1>(variant, visit);
  }
  return false;
}

}  // namespace mobilevit_fast::cuda
