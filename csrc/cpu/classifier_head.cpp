// torch.ops.mobilevit_fast.classifier_head.cpu: checks, memory, launch.
#include "mobilevit_fast/classifier_head.h"

#include "arguments.h"
#include "deal.h"
#include "packing.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const ClassifierHeadParams&, int64_t, int64_t);

#define MVF_POOL(isa) isa::pool_expansion,
#define MVF_CLASSIFY(isa) isa::classify,
constexpr Kernel kPoolVariants[] = {MVF_CPU_ISAS(MVF_POOL)};
constexpr Kernel kClassifyVariants[] = {MVF_CPU_ISAS(MVF_CLASSIFY)};
#undef MVF_POOL
#undef MVF_CLASSIFY

int64_t packed_floats(const Products& products, const Tensor& expand_weight, const Tensor& weight) {
  return panel_floats(expand_weight.size(1) / products.factors, expand_weight.size(0)) +
         panel_floats(weight.size(1) / products.factors, weight.size(0));
}

Tensor pack(Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias, Tensor weight,
            OptionalTensor bias) {
  const Products products({expand_weight, weight});
  Tensor packed = empty_floats(packed_floats(products, expand_weight, weight));
  float* target = static_cast<float*>(packed.mutable_data_ptr());
  target = pack_panels(expand_weight, expand_scale, expand_bias, products.factors, target);
  pack_panels(weight, std::nullopt, bias, products.factors, target);
  return packed;
}

// An uninitialised (rows, columns) tensor on the CPU.
Tensor empty_matrix(int64_t rows, int64_t columns, ScalarType type) {
  const int64_t sizes[] = {rows, columns}, strides[] = {columns, 1};
  const int32_t dtype = type == ScalarType::Float ? aoti_torch_dtype_float32() : aoti_torch_dtype_bfloat16();
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(2, sizes, strides, dtype, aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

Tensor classifier_head(Tensor x, Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias,
                       Tensor weight, OptionalTensor bias, std::string activation, OptionalTensor packed) {
  const Arguments arguments("classifier_head", x);
  arguments.rank("expand weight", expand_weight, 4);
  arguments.rank("weight", weight, 2);
  const int64_t expanded = expand_weight.size(0), channels = expand_weight.size(1), classes = weight.size(0);
  arguments.channels(channels);
  arguments.expect(x.size(2) > 0 && x.size(3) > 0, "an image of at least one pixel, got none");
  arguments.parameter("expand weight", expand_weight, {expanded, channels, 1, 1}, false);
  arguments.parameter("expand scale", expand_scale, {expanded});
  arguments.parameter("expand bias", expand_bias, {expanded});
  arguments.parameter("weight", weight, {classes, expanded}, false);
  arguments.parameter("bias", bias, {classes});

  ClassifierHeadParams p{};
  p.activation = arguments.activation("activation", activation);
  const ScalarType type = x.scalar_type();
  p.element = element_of(type);
  p.expanded = expanded, p.classes = classes;
  const Products products({expand_weight, weight});
  const Tensor weights = arguments.packed(packed, packed_floats(products, expand_weight, weight),
                                          [&] { return pack(expand_weight, expand_scale, expand_bias, weight, bias); });
  p.packed = static_cast<const float*>(weights.const_data_ptr());

  Tensor y = empty_matrix(x.size(0), classes, type);
  if (x.size(0) == 0) return y;
  Tensor pooled = empty_floats(x.size(0) * round_up(expanded, kBlock));
  p.y = y.mutable_data_ptr();
  p.pooled = static_cast<float*>(pooled.mutable_data_ptr());
  p.x = image_batch(x);
  const int isa = static_cast<int>(products.isa);
  deal(pool_tasks(p), [&](int64_t begin, int64_t end) { kPoolVariants[isa](p, begin, end); });
  deal(classify_tasks(p), [&](int64_t begin, int64_t end) { kClassifyVariants[isa](p, begin, end); });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) {
  m.impl("classifier_head.cpu", TORCH_BOX(&classifier_head));
  m.impl("classifier_head.cpu_pack", TORCH_BOX(&pack));
}

}  // namespace mobilevit_fast::cpu
