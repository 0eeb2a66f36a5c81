// torch.ops.mobilevit_fast.depthwise_conv2d.cuda: checks, memory, launch.
#include "depthwise_conv2d.h"

#include "cuda/binding.h"

namespace mobilevit_fast::cuda {
namespace {

Tensor depthwise_conv2d_op(Tensor x, Tensor packed, int64_t channels, int64_t kernel, int64_t kernel_w,
                           std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                           std::string activation) {
  const Arguments arguments("depthwise_conv2d", x, packed, false, channels, kernel, kernel_w);
  arguments.channels(channels);
  arguments.multiple_of_eight("channels", channels);
  arguments.expect(kernel == kernel_w && (kernel == 3 || kernel == 5 || kernel == 7),
                   "a window of 3x3, 5x5 or 7x7, got ", kernel, "x", kernel_w);

  DepthwiseConv2dParams p{};
  p.padding = arguments.same("padding", padding, 0), p.dilation = arguments.same("dilation", dilation, 1);
  arguments.expect(arguments.same("stride", stride, 1) <= 2, "stride 1 or 2, got ", stride[0]);
  int64_t out_h = 0, out_w = 0;
  arguments.window(kernel, kernel, stride, padding, dilation, out_h, out_w);
  const int64_t extent = (kSmallTile - 1) * stride[0] + (kernel - 1) * p.dilation + 1;
  arguments.expect(extent * extent * kDepthwiseChannels * 2 <= kSharedEverywhere,
                   "a window that shared memory holds, got one of ", extent, "x", extent, " pixels");
  p.batch = arguments.small("images", x.size(0)), p.channels = arguments.small("channels", channels);
  p.height = arguments.small("rows", x.size(2)), p.width = arguments.small("columns", x.size(3));
  p.out_h = arguments.small("rows", out_h), p.out_w = arguments.small("columns", out_w);
  p.activation = arguments.activation("activation", activation);

  const Target target(x);
  PackedParts parts(arguments, packed);
  p.weight = parts.take<Float2>(product_of(kernel * kernel, channels) / 2);
  p.scale = parts.take<Float2>(channels / 2), p.bias = parts.take<Float2>(channels / 2);
  parts.check();

  const Tensor input = dense_image(x);
  Tensor y = empty_image(x, p.batch, channels, out_h, out_w);
  if (p.batch == 0) return y;
  p.x = input.const_data_ptr(), p.y = y.mutable_data_ptr();
  const auto run = x.scalar_type() == ScalarType::Half ? depthwise_conv2d<Half> : depthwise_conv2d<BFloat16>;
  arguments.launched(run(p, static_cast<int>(kernel), static_cast<int>(stride[0]), target.stream()));
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) {
  m.impl("depthwise_conv2d.cuda", TORCH_BOX(&depthwise_conv2d_op));
}

}  // namespace mobilevit_fast::cuda
