// torch.ops.mobilevit_fast.depthwise_conv2d.cpu: checks, memory, launch.
#include "depthwise_conv2d.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "cpu/arguments.h"
#include "cpu/parallel.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const DepthwiseConv2dParams&, int64_t, int64_t);

#define MVF_ENTRY(isa) isa::depthwise_conv2d,
constexpr Kernel kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

// Copies any weight (C, 1, kh, kw) to (kh, kw, C), at every call: a few kilobytes, and the regions of a model have
// their depthwise weights packed in other operators. `storage` owns the copy.
template <class T>
const T* repack(const Tensor& weight, std::vector<float>& storage) {
  const int64_t channels = weight.size(0), kernel_h = weight.size(2), kernel_w = weight.size(3);
  const int64_t bytes = product_of(channels, kernel_h, kernel_w, sizeof(T));
  check(bytes != kUncountable, "mobilevit_fast.depthwise_conv2d: expected a weight of fewer than 2^63 bytes");
  storage.resize(ceil_div(bytes, sizeof(float)));
  const char* source = static_cast<const char*>(weight.const_data_ptr());
  char* target = reinterpret_cast<char*>(storage.data());
  for (int64_t kh = 0; kh < kernel_h; ++kh) {
    for (int64_t kw = 0; kw < kernel_w; ++kw) {
      for (int64_t c = 0; c < channels; ++c, target += sizeof(T)) {
        const int64_t offset = c * weight.stride(0) + kh * weight.stride(2) + kw * weight.stride(3);
        std::memcpy(target, source + offset * static_cast<int64_t>(sizeof(T)), sizeof(T));
      }
    }
  }
  return reinterpret_cast<const T*>(storage.data());
}

// Two rows a task, since the 3x3 kernel computes rows in pairs; channels are cut only where rows are too few to keep
// all threads busy, and never below 64, a whole number of vectors of every instruction set.
void plan_tasks(DepthwiseConv2dParams& p, int64_t threads) {
  constexpr int64_t kTasksPerThread = 4, kLeastChannels = 64;
  p.rows_per_task = 2;
  const int64_t tasks = p.batch * row_blocks(p);
  const int64_t wanted = threads > 1 ? (threads * kTasksPerThread + tasks - 1) / tasks : 1;
  const int64_t blocks = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, p.channels / kLeastChannels));
  p.channels_per_task = p.channels / blocks;
  if (blocks > 1) p.channels_per_task = p.channels_per_task / kLeastChannels * kLeastChannels;
}

// Tasks below which a second thread costs more than it saves (about 10 microseconds of work).
int64_t grain_size(const DepthwiseConv2dParams& p) {
  constexpr int64_t kLeastProducts = 1 << 18;
  const int64_t products = product_of(p.rows_per_task, p.out_w, p.channels_per_task, p.kernel_h, p.kernel_w);
  return std::max<int64_t>(1, kLeastProducts / std::max<int64_t>(1, products));
}

// Makes `values` dense if they are not, and gives their address; null where there are none.
const void* dense_address(std::optional<Tensor>& values) {
  if (!values) return nullptr;
  if (values->size(0) > 1 && values->stride(0) != 1) values = torch::stable::contiguous(*values);
  return values->const_data_ptr();
}

Tensor depthwise_conv2d(Tensor x, Tensor weight, std::optional<Tensor> scale, std::optional<Tensor> bias,
                        std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                        std::string activation) {
  const Arguments arguments("depthwise_conv2d", x);
  arguments.rank("weight", weight, 4);
  const int64_t channels = weight.size(0);
  arguments.channels(channels);
  arguments.parameter("weight", weight, {channels, 1, weight.size(2), weight.size(3)}, false);
  arguments.parameter("scale", scale, {channels});
  arguments.parameter("bias", bias, {channels});

  DepthwiseConv2dParams p{};
  const Window window = arguments.window(weight.size(2), weight.size(3), stride, padding, dilation, p.out_h, p.out_w);
  p.activation = arguments.activation("activation", activation);
  p.element = element_of(x.scalar_type());
  p.batch = x.size(0), p.channels = channels, p.in_h = x.size(2), p.in_w = x.size(3);
  p.kernel_h = window.kernel_h, p.kernel_w = window.kernel_w;
  p.stride_h = window.stride_h, p.stride_w = window.stride_w;
  p.padding_h = window.padding_h, p.padding_w = window.padding_w;
  p.dilation_h = window.dilation_h, p.dilation_w = window.dilation_w;

  Tensor y = empty_channels_last(p.batch, p.channels, p.out_h, p.out_w, x.scalar_type());
  if (p.batch == 0) return y;

  const ImageBatch image = image_batch(x);
  p.x = image.data;
  p.x_image_stride = image.image_stride, p.x_row_stride = image.row_stride, p.x_pixel_stride = image.pixel_stride;

  std::vector<float> packed_weight;
  if (weight.stride(0) == 1) {
    p.weight = weight.const_data_ptr();
    p.weight_row_stride = weight.stride(2), p.weight_tap_stride = weight.stride(3);
  } else {
    p.weight = p.element == Element::float32 ? static_cast<const void*>(repack<uint32_t>(weight, packed_weight))
                                             : repack<uint16_t>(weight, packed_weight);
    p.weight_row_stride = p.kernel_w * p.channels, p.weight_tap_stride = p.channels;
  }

  p.scale = dense_address(scale), p.bias = dense_address(bias);
  if (scale) p.scale_element = element_of(scale->scalar_type());
  if (bias) p.bias_element = element_of(bias->scalar_type());
  p.y = y.mutable_data_ptr();

  plan_tasks(p, torch::stable::get_num_threads());
  const Kernel kernel = kVariants[static_cast<int>(active_isa())];
  parallel_for(task_count(p), [&](int64_t begin, int64_t end) { kernel(p, begin, end); }, grain_size(p));
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) { m.impl("depthwise_conv2d.cpu", TORCH_BOX(&depthwise_conv2d)); }

}  // namespace mobilevit_fast::cpu
