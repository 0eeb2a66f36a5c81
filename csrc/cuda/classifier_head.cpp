// torch.ops.mobilevit_fast.classifier_head.cuda: checks, memory, launch, and torch's matrix product for the classes.
#include "classifier_head.h"

#include <array>

#include "binding.h"
#include "conv2d_choices.h"

namespace mobilevit_fast::cuda {
namespace {

Conv2dTile tile_for(const Conv2dShape& shape) {
#if defined(MVF_EMULATED)
  const std::vector<int>& asked = emulator::Log::get().tile;  // {variant, height, width}
  if (asked.size() == 3) return conv2d_tile(shape, asked[0], 1, asked[1], asked[2]);
#endif
  static Conv2dChoices choices;
  return choices.get(shape, current_chip().processors, choose_classifier_head_tile);
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
  arguments.expect(x.size(2) < 1 << 14 && x.size(3) < 1 << 14, "an image of fewer than 2^14 rows and columns, got ",
                   x.size(2), "x", x.size(3));
  arguments.small("pixels", x.size(0) * x.size(2) * x.size(3));

  ClassifierHeadParams p{};
  p.shape = {static_cast<int>(x.size(0)),
             static_cast<int>(x.size(2)),
             static_cast<int>(x.size(3)),
             static_cast<int>(channels),
             0,
             arguments.small("channels", expanded),
             static_cast<int>(x.size(2)),
             static_cast<int>(x.size(3)),
             1,
             1,
             1,
             1,
             0,
             0,
             1,
             1};
  p.activation = arguments.activation("activation", activation);
  const int64_t pairs = (expanded + 15) / 16;
  PackedParts parts(packed);
  p.weight = parts.take<Bytes16>(conv2d_units(p.shape) * pairs * kWarpSize);
  p.scale = parts.take<Float2>(pairs * 8), p.bias = parts.take<Float2>(pairs * 8);
  arguments.check_packed(packed, parts);

  const Target target(x);
  Tensor mean = empty(x, {p.shape.batch, expanded});
  if (p.shape.batch > 0) {
    p.tile = tile_for(p.shape);
    arguments.small("blocks", p.shape.batch * ((expanded + 15) / 16));
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
