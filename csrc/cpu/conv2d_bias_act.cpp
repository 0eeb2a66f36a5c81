// torch.ops.mobilevit_fast.conv2d_bias_act.cpu: checks, memory, launch.
#include "mobilevit_fast/conv2d_bias_act.h"

#include <algorithm>
#include <numeric>

#include "arguments.h"
#include "deal.h"
#include "packing.h"

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
  const int64_t width = (p.out_w - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1;
  const int64_t line = width * (p.x.channels + p.x2.channels);
  int64_t rows = smaller(p.out_h, ceil_div(kPixels, p.out_w));
  while (rows > 1 && (rows - 1) * p.out_w >= kFewPixels && line_count(window, rows, window.kernel_h) * line > kFloats) {
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

int64_t packed_floats(const Tensor& weight, const Window& window) {
  const int64_t outputs = weight.size(0), channels = weight.size(1);
  return panel_floats(packed_taps(outputs, channels, window) * channels, outputs);
}

Tensor pack(const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias, const Window& window) {
  Tensor packed = empty_floats(packed_floats(weight, window));
  float* target = static_cast<float*>(packed.mutable_data_ptr());
  if (takes_winograd(weight.size(0), weight.size(1), window)) {
    pack_winograd(weight, scale, bias, target);
  } else {
    pack_panels(weight, scale, bias, 1, target);
  }
  return packed;
}

Tensor conv2d_bias_act_pack(Tensor weight, OptionalTensor scale, OptionalTensor bias, std::vector<int64_t> stride,
                            std::vector<int64_t> dilation) {
  check(weight.dim() == 4 && stride.size() == 2 && dilation.size() == 2,
        "mobilevit_fast.conv2d_bias_act: expected a weight of 4 dimensions, a stride and a dilation of 2 numbers, got ",
        weight.dim(), ", ", stride.size(), " and ", dilation.size());
  return pack(weight, scale, bias,
              {weight.size(2), weight.size(3), stride[0], stride[1], 0, 0, dilation[0], dilation[1]});
}

Tensor conv2d_bias_act(Tensor x, OptionalTensor x2, Tensor weight, OptionalTensor scale, OptionalTensor bias,
                       std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                       std::string activation, OptionalTensor packed) {
  const Arguments arguments("conv2d_bias_act", x);
  arguments.rank("weight", weight, 4);
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
  arguments.parameter("weight", weight, {outputs, channels, kernel_h, kernel_w}, false);
  arguments.parameter("scale", scale, {outputs});
  arguments.parameter("bias", bias, {outputs});

  Conv2dBiasActParams p{};
  p.window = arguments.window(kernel_h, kernel_w, stride, padding, dilation, p.out_h, p.out_w);
  p.outputs = outputs;
  p.activation = arguments.activation("activation", activation);
  const ScalarType type = x.scalar_type();
  p.element = element_of(type);
  const Tensor weights =
      arguments.packed(packed, packed_floats(weight, p.window), [&] { return pack(weight, scale, bias, p.window); });
  p.packed = static_cast<const float*>(weights.const_data_ptr());

  Tensor y = empty_channels_last(x.size(0), outputs, p.out_h, p.out_w, type);
  if (x.size(0) == 0) return y;
  p.y = y.mutable_data_ptr();
  p.x = image_batch(x, x.size(1) <= kFewChannels);
  if (x2) p.x2 = image_batch(*x2, x2->size(1) <= kFewChannels);
  const bool winograd = takes_winograd(outputs, channels, p.window);
  (winograd ? split_winograd : split)(p, torch::stable::get_num_threads());
  const int64_t count = winograd ? p.groups * p.slices : tasks(p);
  const Kernel kernel = (winograd ? kWinogradVariants : kVariants)[static_cast<int>(active_isa())];
  deal(count, [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) {
  m.impl("conv2d_bias_act.cpu", TORCH_BOX(&conv2d_bias_act));
  m.impl("conv2d_bias_act.cpu_pack", TORCH_BOX(&conv2d_bias_act_pack));
}

}  // namespace mobilevit_fast::cpu
