// torch.ops.mobilevit_fast.conv2d_bias_act.cpu: checks, memory, launch.
#include "conv2d_bias_act.h"

#include <algorithm>
#include <numeric>

#include "cpu/arguments.h"
#include "cpu/packing.h"
#include "cpu/parallel.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const Conv2dBiasActParams&, int64_t, int64_t);

#define MVF_ENTRY(isa) isa::conv2d_bias_act,
constexpr Kernel kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY
#define MVF_ENTRY(isa) isa::conv2d_winograd,
constexpr Kernel kWinogradVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

// Copying of few channels is cheaper in any order than a conversion before it.
constexpr int64_t kFewChannels = 4;

// Groups of so many pixels that reading the weights costs little, but whose lines stay in the second-level cache.
// Where these are too few for all threads, there are more and smaller ones, and then slices of the output channels.
void split(Conv2dBiasActParams& p, int64_t threads) {
  constexpr int64_t kPixels = 256, kFewPixels = 48, kFloats = 96 * 1024;
  const Window& window = p.window;
  const int64_t line = product_of(line_columns(window, p.out_w, window.kernel_w), p.x.channels + p.x2.channels);
  int64_t rows = smaller(p.out_h, ceil_div(kPixels, p.out_w));
  while (rows > 1 && (rows - 1) * p.out_w >= kFewPixels &&
         product_of(line_count(window, rows, window.kernel_h), line) > kFloats) {
    --rows;
  }
  const int64_t groups = ceil_div(p.out_h, rows);
  const int64_t most = larger(groups, p.out_h * p.out_w * 2 / kFewPixels);
  p.groups = smaller(p.out_h, smaller(most, round_up(groups, threads / std::gcd(p.x.batch, threads))));
  p.slices = smaller(panel_count(p.outputs), ceil_div(threads, p.x.batch * p.groups));
}

// So many tiles that reading the weights costs little, but what is computed of them stays in the second-level cache.
void split_winograd(Conv2dBiasActParams& p, int64_t threads) {
  constexpr int64_t kMostTiles = 48, kFewTiles = 12, kFloats = 192 * 1024;
  const int64_t tile = kWinogradEntries * (p.x.channels + p.x2.channels + kPanelBlocks * kBlock);
  const int64_t tiles = winograd_tiles(p), groups = ceil_div(tiles, std::clamp(kFloats / tile, kFewTiles, kMostTiles));
  p.groups = smaller(larger(groups, tiles / kFewTiles), round_up(groups, threads));
  p.slices = smaller(panel_count(p.outputs), ceil_div(threads, p.groups));
}

struct Weights {
  const Tensor& weight;
  const OptionalTensor &scale, &bias;

  void check(const ParameterChecks& parameters) const {
    parameters.rank("weight", weight, 4);
    // Any shape is one; this is about its type and device.
    parameters.parameter("weight", weight, {weight.size(0), weight.size(1), weight.size(2), weight.size(3)}, false);
    parameters.parameter("scale", scale, {weight.size(0)});
    parameters.parameter("bias", bias, {weight.size(0)});
  }
};

// With the window that they are multiplied in, on which their packing depends.
struct WindowedWeights {
  const Weights& weights;
  const Window& window;

  Products products() const { return Products::of_tiles(weights.weight); }

  bool winograd(const Products& products) const {
    return products.factors == 1 && takes_winograd(weights.weight.size(0), weights.weight.size(1), window);
  }

  int64_t packed_floats(const Products& products) const {
    const int64_t outputs = weights.weight.size(0), channels = weights.weight.size(1);
    const int64_t taps = packed_taps(outputs, channels, window, products.factors > 1);
    return panel_floats(product_of(taps, channels) / products.factors, outputs);
  }

  Tensor pack(const Products& products) const {
    Tensor packed = empty_floats(packed_floats(products));
    float* target = static_cast<float*>(packed.mutable_data_ptr());
    if (winograd(products)) {
      pack_winograd(weights.weight, weights.scale, weights.bias, target);
    } else {
      pack_panels(weights.weight, weights.scale, weights.bias, products.factors, target);
    }
    return packed;
  }
};

Tensor conv2d_bias_act_pack(Tensor weight, OptionalTensor scale, OptionalTensor bias, std::vector<int64_t> stride,
                            std::vector<int64_t> dilation) {
  const Parameters parameters("conv2d_bias_act", "weight", weight);
  const Weights weights{weight, scale, bias};
  weights.check(parameters);
  parameters.pair("stride", stride, 1);
  parameters.pair("dilation", dilation, 1);
  const Window window{weight.size(2), weight.size(3), stride[0], stride[1], 0, 0, dilation[0], dilation[1]};
  const WindowedWeights windowed{weights, window};
  return windowed.pack(windowed.products());
}

Tensor conv2d_bias_act(Tensor x, OptionalTensor x2, Tensor weight, OptionalTensor scale, OptionalTensor bias,
                       std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                       std::string activation, OptionalTensor packed) {
  const Arguments arguments("conv2d_bias_act", x);
  const Weights weights{weight, scale, bias};
  weights.check(arguments);
  const int64_t outputs = weight.size(0), channels = weight.size(1);
  const int64_t kernel_h = weight.size(2), kernel_w = weight.size(3);
  if (x2) {
    const int64_t wanted = channels - x.size(1);
    arguments.expect(x2->dim() == 4, "second input of shape (batch, channels, height, width), got ", x2->dim(),
                     " dimensions");
    arguments.expect(x2->size(1) == wanted, "second input of ", wanted, " channels, got ", x2->size(1));
    arguments.parameter("second input", *x2, {x.size(0), wanted, x.size(2), x.size(3)}, false);
  } else {
    arguments.channels(channels);
  }

  Conv2dBiasActParams p{};
  p.window = arguments.window(kernel_h, kernel_w, stride, padding, dilation, p.out_h, p.out_w);
  p.outputs = outputs;
  p.activation = arguments.activation("activation", activation);
  const ScalarType type = x.scalar_type();
  p.element = element_of(type);
  const WindowedWeights windowed{weights, p.window};
  const Products products = windowed.products();
  const Tensor panels = arguments.packed(packed, products, windowed);
  p.packed = static_cast<const float*>(panels.const_data_ptr());

  Tensor y = empty_channels_last(x.size(0), outputs, p.out_h, p.out_w, type);
  if (x.size(0) == 0) return y;
  p.y = y.mutable_data_ptr();
  p.x = image_batch(x, x.size(1) <= kFewChannels);
  if (x2) p.x2 = image_batch(*x2, x2->size(1) <= kFewChannels);
  const bool winograd = windowed.winograd(products);
  (winograd ? split_winograd : split)(p, torch::stable::get_num_threads());
  const int64_t count = winograd ? p.groups * p.slices : tasks(p);
  const Kernel kernel = (winograd ? kWinogradVariants : kVariants)[static_cast<int>(products.isa)];
  parallel_for(count, [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) {
  m.impl("conv2d_bias_act.cpu", TORCH_BOX(&conv2d_bias_act));
  m.impl("conv2d_bias_act.cpu_pack", TORCH_BOX(&conv2d_bias_act_pack));
}

}  // namespace mobilevit_fast::cpu
