// torch.ops.mobilevit_fast.inverted_residual.cuda and depthwise_separable_conv2d.cuda: checks, memory, launch.
#include "inverted_residual.h"

#include <functional>

#include "cuda/binding.h"
#include "cuda/sm90/rows_sm90.h"
#include "cuda/sm90/small_binding_sm90.h"
#include "cuda/sm90/strips_sm90.h"

namespace mobilevit_fast::cuda {
namespace {

// What is convolved and projected, with or without an expansion before it.
struct Weights {
  const Tensor* expand;
  const OptionalTensor *expand_scale, *expand_bias;
  const Tensor& depthwise;
  const OptionalTensor &depthwise_scale, &depthwise_bias;
  const Tensor& project;
  const OptionalTensor &project_scale, &project_bias;
  const char* project_name;

  void check(const Arguments& arguments, const Tensor& x) const {
    arguments.rank("depthwise weight", depthwise, 4);
    arguments.rank(project_name, project, 4);
    const int64_t expanded = depthwise.size(0), outputs = project.size(0);
    if (expand != nullptr) {
      arguments.rank("expand weight", *expand, 4);
      const int64_t channels = expand->size(1);
      arguments.parameter("expand weight", *expand, {expanded, channels, 1, 1}, false);
      arguments.parameter("expand scale", *expand_scale, {expanded});
      arguments.parameter("expand bias", *expand_bias, {expanded});
      arguments.channels(channels);
    } else {
      arguments.channels(expanded);
    }
    arguments.parameter("depthwise weight", depthwise, {expanded, 1, kWindow, kWindow}, false);
    arguments.parameter("depthwise scale", depthwise_scale, {expanded});
    arguments.parameter("depthwise bias", depthwise_bias, {expanded});
    arguments.parameter(project_name, project, {outputs, expanded, 1, 1}, false);
    arguments.parameter("scale of the result", project_scale, {outputs});
    arguments.parameter("bias of the result", project_bias, {outputs});
    arguments.multiple_of_eight("input channels", x.size(1));
    arguments.multiple_of_eight("channels of the depthwise convolution", expanded);
    arguments.multiple_of_eight("output channels", outputs);
  }
};

// Weights of the kernels for compute capability 9.0; null where there are none for these channels.
struct Sm90Weights {
  const Bytes16* strips = nullptr;
  RowsParams rows{};  // sizes and weights
  SmallResidual few;
};

Sm90Weights take_sm90(const Tensor& packed, const InvertedResidualParams& p, int stride, PackedParts& parts) {
  Sm90Weights weights;
  if (const int words = strips_words({p.channels, p.expanded, p.outputs})) weights.strips = parts.take<Bytes16>(words);
  if (has_rows_sm90(p.channels, p.expanded, p.outputs)) {
    RowsParams& rows = weights.rows;
    rows.channels = p.channels, rows.expanded = p.expanded, rows.outputs = p.outputs, rows.stride = 1;
    const RowsSizes size(rows);
    rows.expand_weight = p.expand_weight, rows.constants = parts.take<Bytes16>(size.constants);
    rows.project_weight = parts.take<Bytes16>(size.project_weight);
    rows.project_affine = parts.take<Float4>(size.project_affine);
  }
  weights.few = SmallResidual(packed, parts, p, stride);
  return weights;
}

// The launch of the kernel for compute capability 9.0 that takes the call and has enough to do for all of the chip;
// none where the others are to run.
std::function<cudaError_t(cudaStream_t)> choose_sm90(const InvertedResidualParams& p, const Sm90Weights& weights,
                                                     int stride) {
  const Chip chip = current_chip();
  if (chip.capability != 90 || p.dilation != 1 || p.activation != Activation::silu) return {};
  if (weights.rows.constants != nullptr) {
    RowsParams rows = weights.rows;
    rows.x = static_cast<const Half*>(p.x), rows.y = static_cast<Half*>(p.y), rows.residual = p.residual;
    rows.batch = p.batch, rows.height = p.height, rows.width = p.width, rows.stride = stride;
    if (takes_rows_sm90(rows) && rows_sm90_are_busy(rows, chip)) {
      return [=](cudaStream_t stream) { return rows_sm90(rows, stream); };
    }
  }
  const int shape = find_strips({p.channels, p.expanded, p.outputs}, stride, p.height, p.width);
  if (shape >= 0 && weights.strips != nullptr) {
    StripsParams strip{};
    strip.x = p.x, strip.y = p.y, strip.weights = weights.strips, strip.residual = p.residual;
    strip.batch = p.batch, strip.height = p.height, strip.width = p.width;
    strip.complete(chip);
    if (strips_are_busy(shape, strip)) return [=](cudaStream_t stream) { return strips(shape, strip, stream); };
  }
  return {};
}

// Sizes, geometry and weights; the stride comes back.
int fill(const Arguments& arguments, const Tensor& x, const Weights& weights, const std::vector<int64_t>& stride,
         const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation, const Tensor& packed,
         InvertedResidualParams& p, Sm90Weights& sm90) {
  p.padding = arguments.same("padding", padding, 0), p.dilation = arguments.same("dilation", dilation, 1);
  arguments.expect(arguments.same("stride", stride, 1) <= 2, "stride 1 or 2, got ", stride[0]);
  int64_t out_h = 0, out_w = 0;
  arguments.window(kWindow, kWindow, stride, padding, dilation, out_h, out_w);
  p.batch = arguments.small("images", x.size(0)), p.channels = arguments.small("channels", x.size(1));
  p.height = arguments.small("rows", x.size(2)), p.width = arguments.small("columns", x.size(3));
  p.out_h = arguments.small("rows", out_h), p.out_w = arguments.small("columns", out_w);
  p.expanded = arguments.small("channels", weights.depthwise.size(0));
  p.outputs = arguments.small("channels", weights.project.size(0));

  const InvertedResidualSizes size(p);
  PackedParts parts(packed);
  if (weights.expand != nullptr) {
    p.expand_weight = parts.take<Bytes16>(size.expand_weight);
    p.expand_scale = parts.take<Float2>(size.expand_affine), p.expand_bias = parts.take<Float2>(size.expand_affine);
  }
  p.depthwise_weight = parts.take<Bytes16>(size.depthwise_weight);
  p.depthwise_scale = parts.take<Float2>(size.depthwise_affine);
  p.depthwise_bias = parts.take<Float2>(size.depthwise_affine);
  p.project_weight = parts.take<Bytes16>(size.project_weight);
  p.project_scale = parts.take<Float2>(size.project_affine);
  p.project_bias = parts.take<Float2>(size.project_affine);
  if (weights.expand != nullptr && parts.more(packed)) {
    sm90 = take_sm90(packed, p, static_cast<int>(stride[0]), parts);
  }
  arguments.check_packed(packed, parts);
  return static_cast<int>(stride[0]);
}

Tensor launch(const Arguments& arguments, const Tensor& x, InvertedResidualParams& p, int stride,
              const Sm90Weights& sm90 = {}) {
  const Target target(x);
  const Tensor input = dense_image(x);
  Tensor y = empty_image(x, p.batch, p.outputs, p.out_h, p.out_w);
  if (p.batch == 0) return y;
  p.x = input.const_data_ptr(), p.y = y.mutable_data_ptr();
  const auto run_sm90 = choose_sm90(p, sm90, stride);
  if (sm90.few.takes(run_sm90 != nullptr)) return arguments.launched(sm90.few.run(input, y, target.stream())), y;
  if (run_sm90) return arguments.launched(run_sm90(target.stream())), y;
  const bool expands = p.expand_weight != nullptr;
  const auto bytes_of =
      x.scalar_type() == ScalarType::Half ? inverted_residual_bytes<Half> : inverted_residual_bytes<BFloat16>;
  const bool countable = int64_t{1} * p.channels * p.dilation * p.dilation < 1 << 24;
  arguments.expect(countable && static_cast<int64_t>(bytes_of(p, expands, stride)) <= kSharedEverywhere,
                   "an input that shared memory holds, got ", p.channels, " channels, stride ", stride, ", dilation ",
                   p.dilation);
  const auto run = x.scalar_type() == ScalarType::Half ? inverted_residual<Half> : inverted_residual<BFloat16>;
  arguments.launched(run(p, expands, stride, target.stream()));
  return y;
}

Tensor inverted_residual_op(Tensor x, Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias,
                            Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                            Tensor project_weight, OptionalTensor project_scale, OptionalTensor project_bias,
                            std::vector<int64_t> stride, std::vector<int64_t> dilation, bool residual,
                            std::string activation, Tensor packed) {
  const Arguments arguments("inverted_residual", x);
  const Weights weights{&expand_weight, &expand_scale,  &expand_bias,  depthwise_weight, depthwise_scale,
                        depthwise_bias, project_weight, project_scale, project_bias,     "project weight"};
  weights.check(arguments, x);
  const bool same = stride == std::vector<int64_t>{1, 1} && project_weight.size(0) == x.size(1);
  arguments.expect(!residual || same, "stride 1 and as many outputs as inputs for a residual, got ",
                   project_weight.size(0), " outputs");
  InvertedResidualParams p{};
  p.residual = residual, p.activation = arguments.activation("activation", activation);
  Sm90Weights sm90;
  const int step = fill(arguments, x, weights, stride, dilation, dilation, packed, p, sm90);  // padding keeps the size
  return launch(arguments, x, p, step, sm90);
}

Tensor separable_op(Tensor x, Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                    Tensor pointwise_weight, OptionalTensor pointwise_scale, OptionalTensor pointwise_bias,
                    std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                    std::string depthwise_activation, std::string pointwise_activation, Tensor packed) {
  const Arguments arguments("depthwise_separable_conv2d", x);
  const Weights weights{nullptr,        nullptr,          nullptr,         depthwise_weight, depthwise_scale,
                        depthwise_bias, pointwise_weight, pointwise_scale, pointwise_bias,   "pointwise weight"};
  weights.check(arguments, x);
  InvertedResidualParams p{};
  p.activation = arguments.activation("depthwise_activation", depthwise_activation);
  p.project_activation = arguments.activation("pointwise_activation", pointwise_activation);
  Sm90Weights none;
  const int step = fill(arguments, x, weights, stride, padding, dilation, packed, p, none);
  return launch(arguments, x, p, step);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) {
  m.impl("inverted_residual.cuda", TORCH_BOX(&inverted_residual_op));
  m.impl("depthwise_separable_conv2d.cuda", TORCH_BOX(&separable_op));
}

}  // namespace mobilevit_fast::cuda
