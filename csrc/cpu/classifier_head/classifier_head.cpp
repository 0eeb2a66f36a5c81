// torch.ops.mobilevit_fast.classifier_head.cpu: checks, memory, launch.
#include "classifier_head.h"

#include "cpu/arguments.h"
#include "cpu/packing.h"
#include "cpu/parallel.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const ClassifierHeadParams&, int64_t, int64_t);

#define MVF_POOL(isa) isa::pool_expansion,
#define MVF_CLASSIFY(isa) isa::classify,
constexpr Kernel kPoolVariants[] = {MVF_CPU_ISAS(MVF_POOL)};
constexpr Kernel kClassifyVariants[] = {MVF_CPU_ISAS(MVF_CLASSIFY)};
#undef MVF_POOL
#undef MVF_CLASSIFY

struct Weights {
  const Tensor& expand;
  const OptionalTensor &expand_scale, &expand_bias;
  const Tensor& linear;
  const OptionalTensor& bias;

  void check(const ParameterChecks& parameters) const {
    parameters.rank("expand weight", expand, 4);
    parameters.rank("weight", linear, 2);
    const int64_t expanded = expand.size(0), classes = linear.size(0);
    parameters.parameter("expand weight", expand, {expanded, expand.size(1), 1, 1}, false);
    parameters.parameter("expand scale", expand_scale, {expanded});
    parameters.parameter("expand bias", expand_bias, {expanded});
    parameters.parameter("weight", linear, {classes, expanded}, false);
    parameters.parameter("bias", bias, {classes});
  }

  Products products() const { return Products({expand, linear}); }

  int64_t packed_floats(const Products& products) const {
    return sum_of(panel_floats(expand.size(1) / products.factors, expand.size(0)),
                  panel_floats(linear.size(1) / products.factors, linear.size(0)));
  }

  Tensor pack(const Products& products) const {
    Tensor packed = empty_floats(packed_floats(products));
    float* target = static_cast<float*>(packed.mutable_data_ptr());
    target = pack_panels(expand, expand_scale, expand_bias, products.factors, target);
    pack_panels(linear, std::nullopt, bias, products.factors, target);
    return packed;
  }
};

Tensor pack(Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias, Tensor weight,
            OptionalTensor bias) {
  const Weights weights{expand_weight, expand_scale, expand_bias, weight, bias};
  weights.check(Parameters("classifier_head", "expand weight", expand_weight));
  return weights.pack(weights.products());
}

Tensor classifier_head(Tensor x, Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias,
                       Tensor weight, OptionalTensor bias, std::string activation, OptionalTensor packed) {
  const Arguments arguments("classifier_head", x);
  const Weights weights{expand_weight, expand_scale, expand_bias, weight, bias};
  weights.check(arguments);
  const int64_t expanded = expand_weight.size(0), classes = weight.size(0);
  arguments.channels(expand_weight.size(1));
  arguments.expect(x.size(2) > 0 && x.size(3) > 0, "an image of at least one pixel, got none");

  ClassifierHeadParams p{};
  p.activation = arguments.activation("activation", activation);
  const ScalarType type = x.scalar_type();
  p.element = element_of(type);
  p.expanded = expanded, p.classes = classes;
  const Products products = weights.products();
  const Tensor panels = arguments.packed(packed, products, weights);
  p.packed = static_cast<const float*>(panels.const_data_ptr());

  Tensor y = empty_matrix(x.size(0), classes, type);
  if (x.size(0) == 0) return y;
  Tensor pooled = empty_floats(product_of(x.size(0), round_up(expanded, kBlock)));
  p.y = y.mutable_data_ptr();
  p.pooled = static_cast<float*>(pooled.mutable_data_ptr());
  p.x = image_batch(x);
  const int isa = static_cast<int>(products.isa);
  parallel_for(pool_tasks(p), [&](int64_t begin, int64_t end) { kPoolVariants[isa](p, begin, end); });
  parallel_for(classify_tasks(p), [&](int64_t begin, int64_t end) { kClassifyVariants[isa](p, begin, end); });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) {
  m.impl("classifier_head.cpu", TORCH_BOX(&classifier_head));
  m.impl("classifier_head.cpu_pack", TORCH_BOX(&pack));
}

}  // namespace mobilevit_fast::cpu
