// torch.ops.mobilevit_fast.inverted_residual.cuda and depthwise_separable_conv2d.cuda: checks, memory, launch.
#include "inverted_residual.h"

#include <functional>

#include "cuda/binding.h"
#include "cuda/sm90/rows_sm90.h"
#include "cuda/sm90/small_binding_sm90.h"
#include "cuda/sm90/strips_sm90.h"

namespace mobilevit_fast::cuda {
namespace {

// Weights of the kernels for compute capability 9.0; null where there are none for these channels.
struct Sm90Weights {
  const Bytes16* strips = nullptr;
  RowsParams rows{};  // sizes and weights
  SmallResidual few;
};

Sm90Weights take_sm90(const InvertedResidualParams& p, int stride, PackedParts& parts) {
  Sm90Weights weights;
  const bool bfloat16 = !parts.sm90_half();
  if (const int words = strips_words({p.channels, p.expanded, p.outputs, bfloat16})) {
    weights.strips = parts.take<Bytes16>(words);
  }
  if (!bfloat16 && has_rows_sm90(p.channels, p.expanded, p.outputs)) {
    RowsParams& rows = weights.rows;
    rows.channels = p.channels, rows.expanded = p.expanded, rows.outputs = p.outputs, rows.stride = 1;
    const RowsSizes size(rows);
    rows.expand_weight = p.expand_weight, rows.constants = parts.take<Bytes16>(size.constants);
    rows.project_weight = parts.take<Bytes16>(size.project_weight);
    rows.project_affine = parts.take<Float4>(size.project_affine);
  }
  weights.few = SmallResidual(parts, p, stride);
  return weights;
}

// The launch of the kernel for compute capability 9.0 that takes the call and has enough to do for all of the chip;
// none where the others are to run.
std::function<cudaError_t(cudaStream_t)> choose_sm90(const InvertedResidualParams& p, const Sm90Weights& weights,
                                                     int stride, bool bfloat16) {
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
    const auto run = bfloat16 ? strips<BFloat16> : strips<Half>;
    if (strips_are_busy(shape, strip, bfloat16)) return [=](cudaStream_t stream) { return run(shape, strip, stream); };
  }
  return {};
}

// Sizes, geometry and weights, with an expansion or without; the stride comes back.
int fill(const Arguments& arguments, const Tensor& x, bool expands, int64_t expanded, int64_t outputs,
         const std::vector<int64_t>& stride, const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
         const Tensor& packed, InvertedResidualParams& p, Sm90Weights& sm90) {
  arguments.multiple_of_eight("input channels", x.size(1));
  arguments.multiple_of_eight("channels of the depthwise convolution", expanded);
  arguments.multiple_of_eight("output channels", outputs);
  p.padding = arguments.same("padding", padding, 0), p.dilation = arguments.same("dilation", dilation, 1);
  arguments.expect(arguments.same("stride", stride, 1) <= 2, "stride 1 or 2, got ", stride[0]);
  int64_t out_h = 0, out_w = 0;
  arguments.window(kWindow, kWindow, stride, padding, dilation, out_h, out_w);
  p.batch = arguments.small("images", x.size(0)), p.channels = arguments.small("channels", x.size(1));
  p.height = arguments.small("rows", x.size(2)), p.width = arguments.small("columns", x.size(3));
  p.out_h = arguments.small("rows", out_h), p.out_w = arguments.small("columns", out_w);
  p.expanded = arguments.small("channels", expanded);
  p.outputs = arguments.small("channels", outputs);

  const InvertedResidualSizes size(p);
  PackedParts parts(arguments, packed);
  if (expands) {
    p.expand_weight = parts.take<Bytes16>(size.expand_weight);
    p.expand_scale = parts.take<Float2>(size.expand_affine), p.expand_bias = parts.take<Float2>(size.expand_affine);
  }
  p.depthwise_weight = parts.take<Bytes16>(size.depthwise_weight);
  p.depthwise_scale = parts.take<Float2>(size.depthwise_affine);
  p.depthwise_bias = parts.take<Float2>(size.depthwise_affine);
  p.project_weight = parts.take<Bytes16>(size.project_weight);
  p.project_scale = parts.take<Float2>(size.project_affine);
  p.project_bias = parts.take<Float2>(size.project_affine);
  if (expands && parts.sm90()) sm90 = take_sm90(p, static_cast<int>(stride[0]), parts);
  parts.check();
  return static_cast<int>(stride[0]);
}

Tensor launch(const Arguments& arguments, const Tensor& x, InvertedResidualParams& p, int stride,
              const Sm90Weights& sm90 = {}) {
  const Target target(x);
  const Tensor input = dense_image(x);
  Tensor y = empty_image(x, p.batch, p.outputs, p.out_h, p.out_w);
  if (p.batch == 0) return y;
  p.x = input.const_data_ptr(), p.y = y.mutable_data_ptr();
  const auto run_sm90 = choose_sm90(p, sm90, stride, x.scalar_type() == ScalarType::BFloat16);
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

void check_window(const Arguments& arguments, int64_t kernel_h, int64_t kernel_w) {
  arguments.expect(kernel_h == kWindow && kernel_w == kWindow, "a depthwise window of 3x3, got ", kernel_h, "x",
                   kernel_w);
}

Tensor inverted_residual_op(Tensor x, Tensor packed, int64_t expanded, int64_t channels, int64_t kernel_h,
                            int64_t kernel_w, int64_t outputs, std::vector<int64_t> stride,
                            std::vector<int64_t> dilation, bool residual, std::string activation) {
  const Arguments arguments("inverted_residual", x, packed, false, expanded, channels, kernel_h, kernel_w, outputs);
  arguments.channels(channels);
  check_window(arguments, kernel_h, kernel_w);
  InvertedResidualParams p{};
  const std::vector<int64_t> padding = arguments.same_padding(kernel_h, kernel_w, dilation);
  p.residual = residual, p.activation = arguments.activation("activation", activation);
  Sm90Weights sm90;
  const int step = fill(arguments, x, true, expanded, outputs, stride, padding, dilation, packed, p, sm90);
  arguments.residual(residual, outputs, stride);
  return launch(arguments, x, p, step, sm90);
}

Tensor separable_op(Tensor x, Tensor packed, int64_t channels, int64_t kernel_h, int64_t kernel_w, int64_t outputs,
                    std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                    std::string depthwise_activation, std::string pointwise_activation) {
  const Arguments arguments("depthwise_separable_conv2d", x, packed, false, channels, kernel_h, kernel_w, outputs);
  arguments.channels(channels);
  check_window(arguments, kernel_h, kernel_w);
  InvertedResidualParams p{};
  p.activation = arguments.activation("depthwise_activation", depthwise_activation);
  p.project_activation = arguments.activation("pointwise_activation", pointwise_activation);
  Sm90Weights none;
  const int step = fill(arguments, x, false, channels, outputs, stride, padding, dilation, packed, p, none);
  return launch(arguments, x, p, step);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) {
  m.impl("inverted_residual.cuda", TORCH_BOX(&inverted_residual_op));
  m.impl("depthwise_separable_conv2d.cuda", TORCH_BOX(&separable_op));
}

}  // namespace mobilevit_fast::cuda
