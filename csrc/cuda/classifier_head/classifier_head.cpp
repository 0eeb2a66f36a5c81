// torch.ops.mobilevit_fast.classifier_head.cuda: checks, memory, launch, and torch's matrix product for the classes.
#include "classifier_head.h"

#include <array>

#include "cuda/conv2d_bias_act/conv2d_binding.h"
#include "cuda/sm90/small_binding_sm90.h"

namespace mobilevit_fast::cuda {
namespace {

// How an image is shared out, or what a test of the emulator asks for: {rows, slices}.
void choose_tile(ClassifierHeadParams& p) {
#if defined(MVF_EMULATED)
  const std::vector<int>& asked = emulator::Log::get().tile;
  if (asked.size() == 2) {
    p.rows = asked[0], p.slices = asked[1];
    return;
  }
#endif
  choose_classifier_head_tile(p, current_chip().processors);
}

Tensor linear(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const OptionalTensor same = bias ? OptionalTensor(torch::stable::to(*bias, x.scalar_type())) : std::nullopt;
  std::array<StableIValue, 3> stack{torch::stable::detail::from(x), torch::stable::detail::from(weight),
                                    torch::stable::detail::from(same)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linear", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::to(torch::stable::detail::to<Tensor>(stack[0]), x.scalar_type());  // autocast may be on
}

Tensor classifier_head_op(Tensor x, Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias,
                          Tensor weight, OptionalTensor bias, std::string activation, Tensor packed) {
  const Arguments arguments("classifier_head", x);
  arguments.rank("expand weight", expand_weight, 4);
  arguments.rank("weight", weight, 2);
  const int64_t expanded = expand_weight.size(0), channels = expand_weight.size(1);
  arguments.channels(channels);
  arguments.parameter("expand weight", expand_weight, {expanded, channels, 1, 1}, false);
  arguments.parameter("expand scale", expand_scale, {expanded});
  arguments.parameter("expand bias", expand_bias, {expanded});
  arguments.parameter("weight", weight, {weight.size(0), expanded}, false);
  arguments.parameter("bias", bias, {weight.size(0)});
  arguments.multiple_of_eight("channels", channels);
  arguments.expect(x.size(2) > 0 && x.size(3) > 0, "an image of at least one pixel, got one of ", x.size(2), "x",
                   x.size(3));
  arguments.expect(channels <= kClassifierHeadChannels, "at most ", kClassifierHeadChannels, " channels, got ",
                   channels);
  arguments.small("pixels",
                  sum_of(product_of(x.size(0), x.size(2), x.size(3)), 1 << 20));  // with a tile and processors on top

  ClassifierHeadParams p{};
  p.batch = static_cast<int>(x.size(0)), p.pixels = static_cast<int>(x.size(2) * x.size(3));
  p.channels = static_cast<int>(channels), p.outputs = arguments.small("channels", expanded);
  p.activation = arguments.activation("activation", activation);
  PackedParts parts(packed);
  const Conv2dParameters parameters(parts, (channels + 15) / 16, expanded);
  const SmallHead few(packed, parts, p, arguments.small("classes", weight.size(0)));
  arguments.check_packed(packed, parts);
  p.weight = parameters.weight, p.scale = parameters.scale, p.bias = parameters.bias;

  const Target target(x);
  if (few.takes()) return few.run(arguments, x, target.stream());
  Tensor mean = empty(x, {x.size(0), expanded});
  if (p.batch > 0) {
    choose_tile(p);
    arguments.small("blocks", product_of(x.size(0), p.slices));
    const Tensor input = dense_image(x);
    p.x = input.const_data_ptr(), p.mean = mean.mutable_data_ptr();
    const auto run = x.scalar_type() == ScalarType::Half ? classifier_head<Half> : classifier_head<BFloat16>;
    arguments.launched(run(p, target.stream()));
  }
  return linear(mean, weight, bias);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) {
  m.impl("classifier_head.cuda", TORCH_BOX(&classifier_head_op));
}

}  // namespace mobilevit_fast::cuda
