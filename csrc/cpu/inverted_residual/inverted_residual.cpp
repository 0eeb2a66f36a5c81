// torch.ops.mobilevit_fast.inverted_residual.cpu and depthwise_separable_conv2d.cpu: checks, memory, launch.
#include "inverted_residual.h"

#include <algorithm>

#include "cpu/arguments.h"
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

struct ResidualWeights {
  const Tensor& expand;
  const OptionalTensor &expand_scale, &expand_bias;
  const Tensor& depthwise;
  const OptionalTensor &depthwise_scale, &depthwise_bias;
  const Tensor& project;
  const OptionalTensor &project_scale, &project_bias;

  void check(const ParameterChecks& parameters) const {
    parameters.rank("expand weight", expand, 4);
    parameters.rank("depthwise weight", depthwise, 4);
    parameters.rank("project weight", project, 4);
    const int64_t channels = expand.size(1), expanded = depthwise.size(0), outputs = project.size(0);
    const int64_t kernel_h = depthwise.size(2), kernel_w = depthwise.size(3);
    parameters.parameter("expand weight", expand, {expanded, channels, 1, 1}, false);
    parameters.parameter("expand scale", expand_scale, {expanded});
    parameters.parameter("expand bias", expand_bias, {expanded});
    parameters.parameter("depthwise weight", depthwise, {expanded, 1, kernel_h, kernel_w}, false);
    parameters.parameter("depthwise scale", depthwise_scale, {expanded});
    parameters.parameter("depthwise bias", depthwise_bias, {expanded});
    parameters.parameter("project weight", project, {outputs, expanded, 1, 1}, false);
    parameters.parameter("project scale", project_scale, {outputs});
    parameters.parameter("project bias", project_bias, {outputs});
    parameters.expect(kernel_h % 2 == 1 && kernel_w % 2 == 1, "a depthwise window of odd size, got ", kernel_h, "x",
                      kernel_w);
  }

  Products products() const { return Products({expand, project}); }

  int64_t packed_floats(const Products& products) const {
    const int64_t expanded = expand.size(0), taps = product_of(depthwise.size(2), depthwise.size(3));
    return sum_of(sum_of(panel_floats(expand.size(1) / products.factors, expanded), depthwise_floats(taps, expanded)),
                  panel_floats(expanded / products.factors, project.size(0)));
  }

  Tensor pack(const Products& products) const {
    Tensor packed = empty_floats(packed_floats(products));
    float* target = static_cast<float*>(packed.mutable_data_ptr());
    target = pack_panels(expand, expand_scale, expand_bias, products.factors, target);
    target = pack_depthwise(depthwise, depthwise_scale, depthwise_bias, target);
    pack_panels(project, project_scale, project_bias, products.factors, target);
    return packed;
  }
};

Tensor pack_inverted_residual(Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias,
                              Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                              Tensor project_weight, OptionalTensor project_scale, OptionalTensor project_bias) {
  const ResidualWeights weights{expand_weight,  expand_scale,   expand_bias,   depthwise_weight, depthwise_scale,
                                depthwise_bias, project_weight, project_scale, project_bias};
  weights.check(Parameters("inverted_residual", "expand weight", expand_weight));
  return weights.pack(weights.products());
}

Tensor inverted_residual(Tensor x, Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias,
                         Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                         Tensor project_weight, OptionalTensor project_scale, OptionalTensor project_bias,
                         std::vector<int64_t> stride, std::vector<int64_t> dilation, bool residual,
                         std::string activation, OptionalTensor packed) {
  const Arguments arguments("inverted_residual", x);
  const ResidualWeights weights{expand_weight,  expand_scale,   expand_bias,   depthwise_weight, depthwise_scale,
                                depthwise_bias, project_weight, project_scale, project_bias};
  weights.check(arguments);
  const int64_t channels = expand_weight.size(1), expanded = depthwise_weight.size(0), outputs = project_weight.size(0);
  const int64_t kernel_h = depthwise_weight.size(2), kernel_w = depthwise_weight.size(3);
  arguments.channels(channels);
  arguments.pair("dilation", dilation, 1);

  InvertedResidualParams p{};
  const std::vector<int64_t> padding{product_of((kernel_h - 1) / 2, dilation[0]),
                                     product_of((kernel_w - 1) / 2, dilation[1])};
  p.window = arguments.window(kernel_h, kernel_w, stride, padding, dilation, p.out_h, p.out_w);
  arguments.expect(!residual || (outputs == channels && stride[0] == 1 && stride[1] == 1),
                   "stride 1 and as many outputs as inputs for a residual, got ", outputs, " outputs, stride [",
                   stride[0], ", ", stride[1], "]");
  p.expanded = expanded, p.outputs = outputs, p.expands = true, p.residual = residual;
  p.expand_activation = p.depthwise_activation = arguments.activation("activation", activation);
  p.element = element_of(x.scalar_type());
  const Products products = weights.products();
  const Tensor panels = arguments.packed(packed, products, weights);
  p.packed = static_cast<const float*>(panels.const_data_ptr());
  const ScalarType type = x.scalar_type();
  p.x = image_batch(x);
  return launch(p, type, products.isa);
}

struct SeparableWeights {
  const Tensor& depthwise;
  const OptionalTensor &depthwise_scale, &depthwise_bias;
  const Tensor& pointwise;
  const OptionalTensor &pointwise_scale, &pointwise_bias;

  void check(const ParameterChecks& parameters) const {
    parameters.rank("depthwise weight", depthwise, 4);
    parameters.rank("pointwise weight", pointwise, 4);
    const int64_t channels = depthwise.size(0), outputs = pointwise.size(0);
    parameters.parameter("depthwise weight", depthwise, {channels, 1, depthwise.size(2), depthwise.size(3)}, false);
    parameters.parameter("depthwise scale", depthwise_scale, {channels});
    parameters.parameter("depthwise bias", depthwise_bias, {channels});
    parameters.parameter("pointwise weight", pointwise, {outputs, channels, 1, 1}, false);
    parameters.parameter("pointwise scale", pointwise_scale, {outputs});
    parameters.parameter("pointwise bias", pointwise_bias, {outputs});
  }

  Products products() const { return Products({pointwise}); }

  int64_t packed_floats(const Products& products) const {
    const int64_t channels = depthwise.size(0), taps = product_of(depthwise.size(2), depthwise.size(3));
    return sum_of(depthwise_floats(taps, channels), panel_floats(channels / products.factors, pointwise.size(0)));
  }

  Tensor pack(const Products& products) const {
    Tensor packed = empty_floats(packed_floats(products));
    float* target = static_cast<float*>(packed.mutable_data_ptr());
    target = pack_depthwise(depthwise, depthwise_scale, depthwise_bias, target);
    pack_panels(pointwise, pointwise_scale, pointwise_bias, products.factors, target);
    return packed;
  }
};

Tensor pack_separable(Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                      Tensor pointwise_weight, OptionalTensor pointwise_scale, OptionalTensor pointwise_bias) {
  const SeparableWeights weights{depthwise_weight, depthwise_scale, depthwise_bias,
                                 pointwise_weight, pointwise_scale, pointwise_bias};
  weights.check(Parameters("depthwise_separable_conv2d", "depthwise weight", depthwise_weight));
  return weights.pack(weights.products());
}

Tensor separable(Tensor x, Tensor depthwise_weight, OptionalTensor depthwise_scale, OptionalTensor depthwise_bias,
                 Tensor pointwise_weight, OptionalTensor pointwise_scale, OptionalTensor pointwise_bias,
                 std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                 std::string depthwise_activation, std::string pointwise_activation, OptionalTensor packed) {
  const Arguments arguments("depthwise_separable_conv2d", x);
  const SeparableWeights weights{depthwise_weight, depthwise_scale, depthwise_bias,
                                 pointwise_weight, pointwise_scale, pointwise_bias};
  weights.check(arguments);
  arguments.channels(depthwise_weight.size(0));

  InvertedResidualParams p{};
  p.window =
      arguments.window(depthwise_weight.size(2), depthwise_weight.size(3), stride, padding, dilation, p.out_h, p.out_w);
  p.expanded = depthwise_weight.size(0), p.outputs = pointwise_weight.size(0);
  p.depthwise_activation = arguments.activation("depthwise_activation", depthwise_activation);
  p.project_activation = arguments.activation("pointwise_activation", pointwise_activation);
  p.element = element_of(x.scalar_type());
  const Products products = weights.products();
  const Tensor panels = arguments.packed(packed, products, weights);
  p.packed = static_cast<const float*>(panels.const_data_ptr());
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
