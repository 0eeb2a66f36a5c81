// torch.ops.mobilevit_fast.conv2d_bias_act.cpu: checks, memory, launch.
#include "conv2d_bias_act.h"

#include <algorithm>
#include <numeric>

#include "cpu/arguments.h"
#include "cpu/packed_sizes.h"
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
  constexpr int64_t kMaxTiles = 48, kFewTiles = 12, kFloats = 192 * 1024;
  const int64_t tile = kWinogradEntries * (p.x.channels + p.x2.channels + kPanelBlocks * kBlock);
  const int64_t tiles = winograd_tiles(p), groups = ceil_div(tiles, std::clamp(kFloats / tile, kFewTiles, kMaxTiles));
  p.groups = smaller(larger(groups, tiles / kFewTiles), round_up(groups, threads));
  p.slices = smaller(panel_count(p.outputs), ceil_div(threads, p.groups));
}

Tensor pack(Tensor weight, OptionalTensor scale, OptionalTensor bias, std::vector<int64_t> stride,
            std::vector<int64_t> dilation) {
  check_rank(Conv2dSizes::kOp, "weight", weight, 4);
  for (const std::vector<int64_t>& pair : {stride, dilation}) {
    check(pair.size() == 2 && pair[0] > 0 && pair[1] > 0,
          "mobilevit_fast.conv2d_bias_act: expected stride and dilation of two values of at least 1, got others");
  }
  const Conv2dSizes s{weight.size(0), weight.size(1), weight.size(2), weight.size(3),
                      stride[0],      stride[1],      dilation[0],    dilation[1]};
  Packing packing(s, weight);
  if (s.winograd(packing.products())) {
    packing.winograd("", weight, scale, bias, {s.outputs, s.channels, s.kernel_h, s.kernel_w});
  } else {
    packing.panels("", weight, scale, bias, {s.outputs, s.channels, s.kernel_h, s.kernel_w});
  }
  return packing.finish();
}

Tensor conv2d_bias_act(Tensor x, OptionalTensor x2, Tensor packed, int64_t outputs, int64_t channels, int64_t kernel_h,
                       int64_t kernel_w, std::vector<int64_t> stride, std::vector<int64_t> padding,
                       std::vector<int64_t> dilation, std::string activation) {
  // Values that there must not be are refused below, by the window.
  const auto step = [](const std::vector<int64_t>& pair, size_t i) {
    return pair.size() == 2 ? larger(pair[i], 1) : 1;
  };
  const Conv2dSizes sizes{outputs,         channels,        kernel_h,          kernel_w,
                          step(stride, 0), step(stride, 1), step(dilation, 0), step(dilation, 1)};
  const Arguments arguments(x, packed, sizes);
  if (x2) {
    arguments.second(*x2, channels - x.size(1));
  } else {
    arguments.channels(channels);
  }

  Conv2dBiasActParams p{};
  p.window = arguments.window(kernel_h, kernel_w, stride, padding, dilation, p.out_h, p.out_w);
  p.outputs = outputs;
  p.activation = arguments.activation("activation", activation);
  const ScalarType type = arguments.type();
  p.element = arguments.element();
  p.packed = arguments.weights;

  Tensor y = empty_channels_last(x.size(0), outputs, p.out_h, p.out_w, type);
  if (x.size(0) == 0) return y;
  p.y = y.mutable_data_ptr();
  p.x = image_batch(x, x.size(1) <= kFewChannels);
  if (x2) p.x2 = image_batch(*x2, x2->size(1) <= kFewChannels);
  const bool winograd = sizes.winograd(arguments.products);
  (winograd ? split_winograd : split)(p, torch::stable::get_num_threads());
  const int64_t count = winograd ? p.groups * p.slices : tasks(p);
  const Kernel kernel = (winograd ? kWinogradVariants : kVariants)[static_cast<int>(arguments.products.isa)];
  parallel_for(count, [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) {
  m.impl("conv2d_bias_act.cpu", TORCH_BOX(&conv2d_bias_act));
  m.impl("conv2d_bias_act.cpu_pack", TORCH_BOX(&pack));
}

}  // namespace mobilevit_fast::cpu
