// torch.ops.mobilevit_fast.classifier_head.cpu: checks, memory, launch.
#include "classifier_head.h"

#include "cpu/arguments.h"
#include "cpu/packed_sizes.h"
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

Tensor pack(Tensor expand_weight, OptionalTensor expand_scale, OptionalTensor expand_bias, Tensor weight,
            OptionalTensor bias) {
  check_rank(ClassifierHeadSizes::kOp, "expand weight", expand_weight, 4);
  check_rank(ClassifierHeadSizes::kOp, "weight", weight, 2);
  const ClassifierHeadSizes s{expand_weight.size(0), expand_weight.size(1), weight.size(0)};
  Packing packing(s, expand_weight);
  packing.panels("expand", expand_weight, expand_scale, expand_bias, {s.expanded, s.channels, 1, 1});
  packing.panels("", weight, {}, bias, {s.classes, s.expanded});
  return packing.finish();
}

Tensor classifier_head(Tensor x, Tensor packed, int64_t expanded, int64_t channels, int64_t classes,
                       std::string activation) {
  const Arguments arguments(x, packed, ClassifierHeadSizes{expanded, channels, classes});
  arguments.channels(channels);
  arguments.pixels();

  ClassifierHeadParams p{};
  p.activation = arguments.activation("activation", activation);
  const ScalarType type = arguments.type();
  p.element = arguments.element();
  p.expanded = expanded, p.classes = classes;
  p.packed = arguments.weights;

  Tensor y = empty_matrix(x.size(0), classes, type);
  if (x.size(0) == 0) return y;
  Tensor pooled = empty_floats(product_of(x.size(0), round_up(expanded, kBlock)));
  p.y = y.mutable_data_ptr();
  p.pooled = static_cast<float*>(pooled.mutable_data_ptr());
  p.x = image_batch(x);
  const int isa = static_cast<int>(arguments.products.isa);
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
