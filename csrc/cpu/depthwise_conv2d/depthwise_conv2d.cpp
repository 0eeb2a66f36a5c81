// torch.ops.mobilevit_fast.depthwise_conv2d.cpu: checks, memory, launch.
#include "depthwise_conv2d.h"

#include <algorithm>

#include "cpu/arguments.h"
#include "cpu/packed_sizes.h"
#include "cpu/packing.h"
#include "cpu/parallel.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const DepthwiseConv2dParams&, int64_t, int64_t);

#define MVF_ENTRY(isa) isa::depthwise_conv2d,
constexpr Kernel kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

// Two rows a task, since the 3x3 kernel computes rows in pairs; channels are cut only where rows are too few to keep
// all threads busy, and never below 64, a whole number of vectors of every instruction set.
void plan_tasks(DepthwiseConv2dParams& p, int64_t threads) {
  constexpr int64_t kTasksPerThread = 4, kMinChannels = 64;
  p.rows_per_task = 2;
  const int64_t tasks = p.batch * row_blocks(p);
  const int64_t wanted = threads > 1 ? (threads * kTasksPerThread + tasks - 1) / tasks : 1;
  const int64_t blocks = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, p.channels / kMinChannels));
  p.channels_per_task = p.channels / blocks;
  if (blocks > 1) p.channels_per_task = p.channels_per_task / kMinChannels * kMinChannels;
}

// Tasks below which a second thread costs more than it saves (about 10 microseconds of work).
int64_t grain_size(const DepthwiseConv2dParams& p) {
  constexpr int64_t kMinProducts = 1 << 18;
  const int64_t products = product_of(p.rows_per_task, p.out_w, p.channels_per_task, p.kernel_h, p.kernel_w);
  return std::max<int64_t>(1, kMinProducts / std::max<int64_t>(1, products));
}

Tensor pack(Tensor weight, OptionalTensor scale, OptionalTensor bias) {
  check_rank(DepthwiseSizes::kOp, "weight", weight, 4);
  const DepthwiseSizes s{weight.size(0), weight.size(2), weight.size(3)};
  Packing packing(s, weight);
  packing.depthwise_as_it_is("", weight, scale, bias, {s.channels, 1, s.kernel_h, s.kernel_w});
  return packing.finish();
}

Tensor depthwise_conv2d(Tensor x, Tensor packed, int64_t channels, int64_t kernel_h, int64_t kernel_w,
                        std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                        std::string activation) {
  const Arguments arguments(x, packed, DepthwiseSizes{channels, kernel_h, kernel_w});
  arguments.channels(channels);

  DepthwiseConv2dParams p{};
  const Window window = arguments.window(kernel_h, kernel_w, stride, padding, dilation, p.out_h, p.out_w);
  p.activation = arguments.activation("activation", activation);
  p.element = arguments.element();
  p.batch = x.size(0), p.channels = channels, p.in_h = x.size(2), p.in_w = x.size(3);
  p.kernel_h = window.kernel_h, p.kernel_w = window.kernel_w;
  p.stride_h = window.stride_h, p.stride_w = window.stride_w;
  p.padding_h = window.padding_h, p.padding_w = window.padding_w;
  p.dilation_h = window.dilation_h, p.dilation_w = window.dilation_w;
  p.scale = arguments.weights, p.bias = p.scale + channels, p.weight = p.bias + channels;

  Tensor y = empty_channels_last(p.batch, p.channels, p.out_h, p.out_w, arguments.type());
  if (p.batch == 0) return y;
  const ImageBatch image = image_batch(x);
  p.x = image.data;
  p.x_image_stride = image.image_stride, p.x_row_stride = image.row_stride, p.x_pixel_stride = image.pixel_stride;
  p.y = y.mutable_data_ptr();

  plan_tasks(p, torch::stable::get_num_threads());
  const Kernel kernel = kVariants[static_cast<int>(active_isa())];
  parallel_for(task_count(p), [&](int64_t begin, int64_t end) { kernel(p, begin, end); }, grain_size(p));
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) {
  m.impl("depthwise_conv2d.cpu", TORCH_BOX(&depthwise_conv2d));
  m.impl("depthwise_conv2d.cpu_pack", TORCH_BOX(&pack));
}

}  // namespace mobilevit_fast::cpu
