// torch.ops.mobilevit_fast.inverted_residual.cuda and depthwise_separable_conv2d.cuda: checks, memory, launch.
#include "inverted_residual.h"

#include <functional>

#include "cuda/binding.h"
#include "cuda/program/program.h"
#include "cuda/sm90/rows_sm90.h"
#include "cuda/sm90/small_binding_sm90.h"
#include "strips.h"

namespace mobilevit_fast::cuda {
namespace {

// Weights of other kernels than inverted_residual_kernel.h's; null where there are none for these channels.
struct OtherWeights {
  const Bytes16* strips = nullptr;
  bool sm90 = false;  // whether they were packed for compute capability 9.0
  RowsParams rows{};  // sizes and weights; this and the next for compute capability 9.0
  SmallResidual few;
};

OtherWeights take_others(const InvertedResidualParams& p, int stride, bool bfloat16, PackedParts& parts) {
  OtherWeights weights;
  if (const int words = strips_words({p.channels, p.expanded, p.outputs, bfloat16})) {
    weights.strips = parts.take<Bytes16>(words), weights.sm90 = parts.sm90();
  }
  if (parts.sm90_half() && has_rows_sm90(p.channels, p.expanded, p.outputs)) {
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

using Run = std::function<cudaError_t(cudaStream_t)>;

// The launch of strips, where they take the call and have enough to do for all of the chip; none where not.
Run choose_strips(const InvertedResidualParams& p, const OtherWeights& weights, int stride, bool bfloat16) {
#if defined(MVF_EMULATED)
  const std::vector<int>& tile = emulator::Log::get().tile;
  if (!tile.empty() && tile[0] == 1) return {};  // a test asks for the kernel of every shape
#endif
  const int shape = find_strips({p.channels, p.expanded, p.outputs}, stride, p.height, p.width);
  if (shape < 0 || weights.strips == nullptr) return {};
  const Chip chip = current_chip();
  StripsParams strip{};
  strip.x = p.x, strip.y = p.y, strip.weights = weights.strips, strip.residual = p.residual;
  strip.batch = p.batch, strip.height = p.height, strip.width = p.width;
  strip.complete(chip);
  strip.warps = strips_warps(shape, bfloat16, chip);
  if (strip.warps == 0 || !strips_are_busy(shape, strip)) return {};
  const auto run = weights.sm90 && chip.capability == 90 ? (bfloat16 ? strips_sm90<BFloat16> : strips_sm90<Half>)
                                                         : (bfloat16 ? strips<BFloat16> : strips<Half>);
  return [=](cudaStream_t stream) { return run(shape, strip, stream); };
}

// The launch of another kernel than inverted_residual_kernel.h's that takes the call and has enough to do for all of
// the chip; none where that one is to run.
Run choose_other(const InvertedResidualParams& p, const OtherWeights& weights, int stride, bool bfloat16) {
  if (p.dilation != 1 || p.activation != Activation::silu) return {};
  const Chip chip = current_chip();
  if (weights.rows.constants != nullptr && chip.capability == 90) {
    RowsParams rows = weights.rows;
    rows.x = static_cast<const Half*>(p.x), rows.y = static_cast<Half*>(p.y), rows.residual = p.residual;
    rows.batch = p.batch, rows.height = p.height, rows.width = p.width, rows.stride = stride;
    if (takes_rows_sm90(rows) && rows_sm90_are_busy(rows, chip)) {
      return [=](cudaStream_t stream) { return rows_sm90(rows, stream); };
    }
  }
  return choose_strips(p, weights, stride, bfloat16);
}

// Sizes, geometry and weights, with an expansion or without; the stride comes back.
int fill(const Arguments& arguments, const Tensor& x, bool expands, int64_t expanded, int64_t outputs,
         const std::vector<int64_t>& stride, const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
         const Tensor& packed, InvertedResidualParams& p, OtherWeights& others) {
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
  const bool bfloat16 = x.scalar_type() == ScalarType::BFloat16;
  if (expands) others = take_others(p, static_cast<int>(stride[0]), bfloat16, parts);
  parts.check();
  return static_cast<int>(stride[0]);
}

Tensor launch(const Arguments& arguments, const Tensor& x, InvertedResidualParams& p, int stride,
              const OtherWeights& others = {}) {
  const Target target(x);
  const Tensor input = dense_image(x);
  Tensor y = empty_image(x, p.batch, p.outputs, p.out_h, p.out_w);
  if (p.batch == 0) return y;
  p.x = input.const_data_ptr(), p.y = y.mutable_data_ptr();
  const Run run_other = choose_other(p, others, stride, x.scalar_type() == ScalarType::BFloat16);
  if (others.few.takes(run_other != nullptr)) return arguments.launched(others.few.run(input, y, target.stream())), y;
  if (run_other) return arguments.launched(run_other(target.stream())), y;
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
  OtherWeights others;
  const int step = fill(arguments, x, true, expanded, outputs, stride, padding, dilation, packed, p, others);
  arguments.residual(residual, outputs, stride);
  return launch(arguments, x, p, step, others);
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
  OtherWeights none;
  const int step = fill(arguments, x, false, channels, outputs, stride, padding, dilation, packed, p, none);
  return launch(arguments, x, p, step);
}

[[maybe_unused]] const bool kInPrograms = in_programs<&inverted_residual_op>("inverted_residual");

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) {
  m.impl("inverted_residual.cuda", TORCH_BOX(&inverted_residual_op));
  m.impl("depthwise_separable_conv2d.cuda", TORCH_BOX(&separable_op));
}

}  // namespace mobilevit_fast::cuda
