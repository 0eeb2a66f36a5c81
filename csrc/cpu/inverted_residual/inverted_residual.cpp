// torch.ops.mobilevit_fast.inverted_residual.cpu and depthwise_separable_conv2d.cpu: checks, memory, launch.
#include "inverted_residual.h"

#include <algorithm>

#include "cpu/arguments.h"
#include "cpu/packed_sizes.h"
#include "cpu/packing.h"
#include "cpu/parallel.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const InvertedResidualParams&, int64_t, int64_t);

#define MVF_ENTRY(isa) isa::inverted_residual,
constexpr Kernel kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

// One strip of rows per thread and image suffices where images are many; the rows between two strips are expanded
// twice, so strips are as long as keeping all threads busy allows. Of long ones there are more, so that a thread that
// is slowed down leaves some to the others.
int64_t rows_per_task(const InvertedResidualParams& p, int64_t threads) {
  constexpr int64_t kManyRows = 32;
  if (p.x.batch % threads == 0) return p.out_h;
  const int64_t strips_per_image = ceil_div(threads, std::min(p.x.batch, threads));
  const int64_t most = larger(strips_per_image, p.out_h / kManyRows);
  return larger(1, ceil_div(p.out_h, smaller(most, 2 * strips_per_image)));
}

Tensor launch(InvertedResidualParams& p, ScalarType type, Isa isa) {
  Tensor y = empty_channels_last(p.x.batch, p.outputs, p.out_h, p.out_w, type);
  if (p.x.batch == 0) return y;
  p.y = y.mutable_data_ptr();
  p.rows_per_task = rows_per_task(p, torch::stable::get_num_threads());
  const Kernel kernel = kVariants[static_cast<int>(isa)];
  parallel_for(p.x.batch * strips(p), [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  return y;
}

Tensor pack_inverted_residual(Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias,
                              Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                              Tensor project_weight, OptionalTensor project_scale, OptionalTensor project_bias) {
  check_rank(InvertedResidualSizes::kOp, "expand weight", expand_weight, 4);
  check_rank(InvertedResidualSizes::kOp, "depthwise weight", depthwise_weight, 4);
  check_rank(InvertedResidualSizes::kOp, "project weight", project_weight, 4);
  const InvertedResidualSizes s{expand_weight.size(0), expand_weight.size(1), depthwise_weight.size(2),
                                depthwise_weight.size(3), project_weight.size(0)};
  Packing packing(s, expand_weight);
  packing.panels("expand", expand_weight, expand_scale, expand_bias, {s.expanded, s.channels, 1, 1});
  packing.depthwise("depthwise", depthwise_weight, depthwise_scale, depthwise_bias,
                    {s.expanded, 1, s.kernel_h, s.kernel_w});
  packing.panels("project", project_weight, project_scale, project_bias, {s.outputs, s.expanded, 1, 1});
  return packing.finish();
}

Tensor inverted_residual(Tensor x, Tensor packed, int64_t expanded, int64_t channels, int64_t kernel_h,
                         int64_t kernel_w, int64_t outputs, std::vector<int64_t> stride, std::vector<int64_t> dilation,
                         bool residual, std::string activation) {
  const Arguments arguments(x, packed, InvertedResidualSizes{expanded, channels, kernel_h, kernel_w, outputs});
  arguments.channels(channels);

  InvertedResidualParams p{};
  const std::vector<int64_t> padding = arguments.same_padding(kernel_h, kernel_w, dilation);
  p.window = arguments.window(kernel_h, kernel_w, stride, padding, dilation, p.out_h, p.out_w);
  arguments.residual(residual, outputs, stride);
  p.expanded = expanded, p.outputs = outputs, p.expands = true, p.residual = residual;
  p.expand_activation = p.depthwise_activation = arguments.activation("activation", activation);
  p.packed = arguments.weights, p.element = arguments.element();
  p.x = image_batch(x);
  return launch(p, arguments.type(), arguments.products.isa);
}

Tensor pack_separable(Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                      Tensor pointwise_weight, OptionalTensor pointwise_scale, OptionalTensor pointwise_bias) {
  check_rank(SeparableSizes::kOp, "depthwise weight", depthwise_weight, 4);
  check_rank(SeparableSizes::kOp, "pointwise weight", pointwise_weight, 4);
  const SeparableSizes s{depthwise_weight.size(0), depthwise_weight.size(2), depthwise_weight.size(3),
                         pointwise_weight.size(0)};
  Packing packing(s, depthwise_weight);
  packing.depthwise("depthwise", depthwise_weight, depthwise_scale, depthwise_bias,
                    {s.channels, 1, s.kernel_h, s.kernel_w});
  packing.panels("pointwise", pointwise_weight, pointwise_scale, pointwise_bias, {s.outputs, s.channels, 1, 1});
  return packing.finish();
}

Tensor separable(Tensor x, Tensor packed, int64_t channels, int64_t kernel_h, int64_t kernel_w, int64_t outputs,
                 std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                 std::string depthwise_activation, std::string pointwise_activation) {
  const Arguments arguments(x, packed, SeparableSizes{channels, kernel_h, kernel_w, outputs});
  arguments.channels(channels);

  InvertedResidualParams p{};
  p.window = arguments.window(kernel_h, kernel_w, stride, padding, dilation, p.out_h, p.out_w);
  p.expanded = channels, p.outputs = outputs;
  p.depthwise_activation = arguments.activation("depthwise_activation", depthwise_activation);
  p.project_activation = arguments.activation("pointwise_activation", pointwise_activation);
  p.packed = arguments.weights, p.element = arguments.element();
  p.x = image_batch(x);
  return launch(p, arguments.type(), arguments.products.isa);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) {
  m.impl("inverted_residual.cpu", TORCH_BOX(&inverted_residual));
  m.impl("inverted_residual.cpu_pack", TORCH_BOX(&pack_inverted_residual));
  m.impl("depthwise_separable_conv2d.cpu", TORCH_BOX(&separable));
  m.impl("depthwise_separable_conv2d.cpu_pack", TORCH_BOX(&pack_separable));
}

}  // namespace mobilevit_fast::cpu
