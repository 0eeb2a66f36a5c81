// torch.ops.mobilevit_fast.inverted_residual.cpu and depthwise_separable_conv2d.cpu: checks, memory, launch.
#include "mobilevit_fast/inverted_residual.h"

#include <algorithm>

#include "arguments.h"
#include "deal.h"
#include "packing.h"

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
  deal(p.x.batch * strips(p), [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  return y;
}

int64_t packed_floats(const Products& products, const Tensor& expand_weight, const Tensor& depthwise_weight,
                      const Tensor& project_weight) {
  const int64_t expanded = expand_weight.size(0), taps = depthwise_weight.size(2) * depthwise_weight.size(3);
  return panel_floats(expand_weight.size(1) / products.factors, expanded) + depthwise_floats(taps, expanded) +
         panel_floats(expanded / products.factors, project_weight.size(0));
}

Tensor pack_inverted_residual(Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias,
                              Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                              Tensor project_weight, OptionalTensor project_scale, OptionalTensor project_bias) {
  const Products products({expand_weight, project_weight});
  Tensor packed = empty_floats(packed_floats(products, expand_weight, depthwise_weight, project_weight));
  float* target = static_cast<float*>(packed.mutable_data_ptr());
  target = pack_panels(expand_weight, expand_scale, expand_bias, products.factors, target);
  target = pack_depthwise(depthwise_weight, depthwise_scale, depthwise_bias, target);
  pack_panels(project_weight, project_scale, project_bias, products.factors, target);
  return packed;
}

Tensor inverted_residual(Tensor x, Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias,
                         Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                         Tensor project_weight, OptionalTensor project_scale, OptionalTensor project_bias,
                         std::vector<int64_t> stride, std::vector<int64_t> dilation, bool residual,
                         std::string activation, OptionalTensor packed) {
  const Arguments arguments("inverted_residual", x);
  arguments.rank("expand weight", expand_weight, 4);
  arguments.rank("depthwise weight", depthwise_weight, 4);
  arguments.rank("project weight", project_weight, 4);
  const int64_t channels = expand_weight.size(1), expanded = depthwise_weight.size(0), outputs = project_weight.size(0);
  const int64_t kernel_h = depthwise_weight.size(2), kernel_w = depthwise_weight.size(3);
  arguments.channels(channels);
  arguments.parameter("expand weight", expand_weight, {expanded, channels, 1, 1}, false);
  arguments.parameter("expand scale", expand_scale, {expanded});
  arguments.parameter("expand bias", expand_bias, {expanded});
  arguments.parameter("depthwise weight", depthwise_weight, {expanded, 1, kernel_h, kernel_w}, false);
  arguments.parameter("depthwise scale", depthwise_scale, {expanded});
  arguments.parameter("depthwise bias", depthwise_bias, {expanded});
  arguments.parameter("project weight", project_weight, {outputs, expanded, 1, 1}, false);
  arguments.parameter("project scale", project_scale, {outputs});
  arguments.parameter("project bias", project_bias, {outputs});
  arguments.expect(kernel_h % 2 == 1 && kernel_w % 2 == 1, "a depthwise window of odd size, got ", kernel_h, "x",
                   kernel_w);
  arguments.pair("dilation", dilation, 1);

  InvertedResidualParams p{};
  const std::vector<int64_t> padding{(kernel_h - 1) / 2 * dilation[0], (kernel_w - 1) / 2 * dilation[1]};
  p.window = arguments.window(kernel_h, kernel_w, stride, padding, dilation, p.out_h, p.out_w);
  arguments.expect(!residual || (outputs == channels && stride[0] == 1 && stride[1] == 1),
                   "stride 1 and as many outputs as inputs for a residual, got ", outputs, " outputs, stride [",
                   stride[0], ", ", stride[1], "]");
  p.expanded = expanded, p.outputs = outputs, p.expands = true, p.residual = residual;
  p.expand_activation = p.depthwise_activation = arguments.activation("activation", activation);
  p.element = element_of(x.scalar_type());
  const Products products({expand_weight, project_weight});
  const int64_t floats = packed_floats(products, expand_weight, depthwise_weight, project_weight);
  const Tensor weights = arguments.packed(packed, floats, [&] {
    return pack_inverted_residual(expand_weight, expand_scale, expand_bias, depthwise_weight, depthwise_scale,
                                  depthwise_bias, project_weight, project_scale, project_bias);
  });
  p.packed = static_cast<const float*>(weights.const_data_ptr());
  const ScalarType type = x.scalar_type();
  p.x = image_batch(x);
  return launch(p, type, products.isa);
}

int64_t packed_floats(const Products& products, const Tensor& depthwise_weight, const Tensor& pointwise_weight) {
  const int64_t channels = depthwise_weight.size(0), taps = depthwise_weight.size(2) * depthwise_weight.size(3);
  return depthwise_floats(taps, channels) + panel_floats(channels / products.factors, pointwise_weight.size(0));
}

Tensor pack_separable(Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                      Tensor pointwise_weight, OptionalTensor pointwise_scale, OptionalTensor pointwise_bias) {
  const Products products({pointwise_weight});
  Tensor packed = empty_floats(packed_floats(products, depthwise_weight, pointwise_weight));
  float* target = static_cast<float*>(packed.mutable_data_ptr());
  target = pack_depthwise(depthwise_weight, depthwise_scale, depthwise_bias, target);
  pack_panels(pointwise_weight, pointwise_scale, pointwise_bias, products.factors, target);
  return packed;
}

Tensor separable(Tensor x, Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                 Tensor pointwise_weight, OptionalTensor pointwise_scale, OptionalTensor pointwise_bias,
                 std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                 std::string depthwise_activation, std::string pointwise_activation, OptionalTensor packed) {
  const Arguments arguments("depthwise_separable_conv2d", x);
  arguments.rank("depthwise weight", depthwise_weight, 4);
  arguments.rank("pointwise weight", pointwise_weight, 4);
  const int64_t channels = depthwise_weight.size(0), outputs = pointwise_weight.size(0);
  const int64_t kernel_h = depthwise_weight.size(2), kernel_w = depthwise_weight.size(3);
  arguments.channels(channels);
  arguments.parameter("depthwise weight", depthwise_weight, {channels, 1, kernel_h, kernel_w}, false);
  arguments.parameter("depthwise scale", depthwise_scale, {channels});
  arguments.parameter("depthwise bias", depthwise_bias, {channels});
  arguments.parameter("pointwise weight", pointwise_weight, {outputs, channels, 1, 1}, false);
  arguments.parameter("pointwise scale", pointwise_scale, {outputs});
  arguments.parameter("pointwise bias", pointwise_bias, {outputs});

  InvertedResidualParams p{};
  p.window = arguments.window(kernel_h, kernel_w, stride, padding, dilation, p.out_h, p.out_w);
  p.expanded = channels, p.outputs = outputs;
  p.depthwise_activation = arguments.activation("depthwise_activation", depthwise_activation);
  p.project_activation = arguments.activation("pointwise_activation", pointwise_activation);
  p.element = element_of(x.scalar_type());
  const Products products({pointwise_weight});
  const int64_t floats = packed_floats(products, depthwise_weight, pointwise_weight);
  const Tensor weights = arguments.packed(packed, floats, [&] {
    return pack_separable(depthwise_weight, depthwise_scale, depthwise_bias, pointwise_weight, pointwise_scale,
                          pointwise_bias);
  });
  p.packed = static_cast<const float*>(weights.const_data_ptr());
  const ScalarType type = x.scalar_type();
  p.x = image_batch(x);
  return launch(p, type, products.isa);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) {
  m.impl("inverted_residual.cpu", TORCH_BOX(&inverted_residual));
  m.impl("inverted_residual.cpu_pack", TORCH_BOX(&pack_inverted_residual));
  m.impl("depthwise_separable_conv2d.cpu", TORCH_BOX(&separable));
  m.impl("depthwise_separable_conv2d.cpu_pack", TORCH_BOX(&pack_separable));
}

}  // namespace mobilevit_fast::cpu
