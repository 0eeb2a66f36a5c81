// torch.ops.mobilevit_fast.classifier_head.cuda: checks, memory, launch, and torch's matrix product for the classes.
#include "classifier_head.h"

#include <array>

#include "cuda/conv2d_bias_act/conv2d_binding.h"
#include "cuda/program/program.h"
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

// Part of the packed weights as a tensor; the address is that of a part.
Tensor view(const Tensor& packed, const void* part, const std::vector<int64_t>& sizes) {
  const std::vector<int64_t> strides = dense_strides(sizes);
  int64_t offset = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(packed.get(), &offset));
  offset += (static_cast<const char*>(part) - static_cast<const char*>(packed.const_data_ptr())) / 2;
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(packed.get(), static_cast<int64_t>(sizes.size()), sizes.data(),
                                                        strides.data(), offset, &handle));
  return Tensor(handle);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(x), torch::stable::detail::from(weight),
                                    torch::stable::detail::from(OptionalTensor(bias))};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linear", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::to(torch::stable::detail::to<Tensor>(stack[0]), x.scalar_type());  // autocast may be on
}

Tensor classifier_head_op(Tensor x, Tensor packed, int64_t expanded, int64_t channels, int64_t classes,
                          std::string activation) {
  const Arguments arguments("classifier_head", x, packed, false, expanded, channels, classes);
  arguments.channels(channels);
  arguments.multiple_of_eight("channels", channels);
  arguments.pixels();
  arguments.expect(channels <= kClassifierHeadChannels, "at most ", kClassifierHeadChannels, " channels, got ",
                   channels);
  arguments.small("pixels",
                  sum_of(product_of(x.size(0), x.size(2), x.size(3)), 1 << 20));  // with a tile and processors on top

  ClassifierHeadParams p{};
  p.batch = static_cast<int>(x.size(0)), p.pixels = static_cast<int>(x.size(2) * x.size(3));
  p.channels = static_cast<int>(channels), p.outputs = arguments.small("channels", expanded);
  p.activation = arguments.activation("activation", activation);
  PackedParts parts(arguments, packed);
  const auto* class_weight = parts.take<Half>(product_of(classes, expanded));
  const auto* class_bias = parts.take<Half>(classes);
  const Conv2dParameters parameters(parts, (channels + 15) / 16, expanded);
  const SmallHead few(parts, p, arguments.small("classes", classes));
  parts.check();
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
  return linear(mean, view(packed, class_weight, {classes, expanded}), view(packed, class_bias, {classes}));
}

[[maybe_unused]] const bool kInPrograms = in_programs<&classifier_head_op>("classifier_head");

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) {
  m.impl("classifier_head.cuda", TORCH_BOX(&classifier_head_op));
}

}  // namespace mobilevit_fast::cuda
