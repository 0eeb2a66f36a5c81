// torch.ops.mobilevit_fast.aspp.cpu: checks, memory, launch.
#include "aspp.h"

#include "common/aspp_parameters.h"
#include "cpu/arguments.h"
#include "cpu/packing.h"
#include "cpu/parallel.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const AsppParams&, int64_t, int64_t);

#define MVF_POOL(isa) isa::aspp_pool,
#define MVF_ENTRY(isa) isa::aspp,
constexpr Kernel kPoolVariants[] = {MVF_CPU_ISAS(MVF_POOL)};
constexpr Kernel kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_POOL
#undef MVF_ENTRY

// Part `index` of a stack of parameters; none of none.
OptionalTensor layer(const OptionalTensor& stack, int64_t index) {
  if (!stack) return std::nullopt;
  return torch::stable::select(*stack, 0, index);
}

struct Weights : AsppParameters {
  int64_t packed_floats(const Products&) const {
    return aspp_floats(channels(), features(), outputs(), atrous.size(0));
  }

  Tensor pack(const Products& products) const {
    const int64_t rates = atrous.size(0), width = (rates + 1) * features();
    Tensor packed = empty_floats(packed_floats(products));
    float* target = static_cast<float*>(packed.mutable_data_ptr());
    target = pack_panels(pointwise, pointwise_scale, pointwise_bias, 1, target);
    for (int64_t i = 0; i < rates; ++i) {
      target = pack_panels(*layer(atrous, i), layer(atrous_scale, i), layer(atrous_bias, i), 1, target);
    }
    target = pack_panels(pool, pool_scale, pool_bias, 1, target);
    Tensor all = project;  // narrow() takes no constant
    target = pack_panels(torch::stable::narrow(all, 1, 0, width), project_scale, std::nullopt, 1, target);
    pack_panels(torch::stable::narrow(all, 1, width, features()), project_scale, project_bias, 1, target);
    return packed;
  }
};

Tensor pack(Tensor pointwise_weight, OptionalTensor pointwise_scale, OptionalTensor pointwise_bias,
            Tensor atrous_weight, OptionalTensor atrous_scale, OptionalTensor atrous_bias, Tensor pool_weight,
            OptionalTensor pool_scale, OptionalTensor pool_bias, Tensor project_weight, OptionalTensor project_scale,
            OptionalTensor project_bias) {
  const Weights weights{pointwise_weight, pointwise_scale, pointwise_bias, atrous_weight,  atrous_scale,  atrous_bias,
                        pool_weight,      pool_scale,      pool_bias,      project_weight, project_scale, project_bias};
  weights.check(Parameters("aspp", "pointwise weight", pointwise_weight));
  return weights.pack(Products());
}

// Tiles of so many features that reading the weights for each tile costs little, but that a second-level cache of a
// megabyte holds; more and smaller ones where these are too few for all threads.
void split(AsppParams& p, int64_t threads) {
  constexpr int64_t kFloats = 256 * 1024, kColumns = 64;
  const int64_t most = larger(1, kFloats / aspp_width(p));
  p.tile_columns = ceil_div(p.x.width, smaller(kColumns, most));
  const int64_t rows = larger(1, most / ceil_div(p.x.width, p.tile_columns));
  const int64_t wanted = ceil_div(threads, p.x.batch * p.tile_columns);
  p.tile_rows = smaller(p.x.height, round_up(ceil_div(p.x.height, rows), wanted));
  const int64_t missing = ceil_div(threads, p.x.batch * p.tile_columns * p.tile_rows);
  p.tile_columns = smaller(p.x.width, p.tile_columns * missing);
}

Tensor aspp(Tensor x, Tensor pointwise_weight, OptionalTensor pointwise_scale, OptionalTensor pointwise_bias,
            Tensor atrous_weight, OptionalTensor atrous_scale, OptionalTensor atrous_bias, Tensor pool_weight,
            OptionalTensor pool_scale, OptionalTensor pool_bias, Tensor project_weight, OptionalTensor project_scale,
            OptionalTensor project_bias, std::vector<int64_t> rates, std::string activation, OptionalTensor packed) {
  const Arguments arguments("aspp", x);
  const Weights weights{pointwise_weight, pointwise_scale, pointwise_bias, atrous_weight,  atrous_scale,  atrous_bias,
                        pool_weight,      pool_scale,      pool_bias,      project_weight, project_scale, project_bias};
  weights.check(arguments, x, rates);
  const int64_t channels = weights.channels(), outputs = weights.outputs();

  AsppParams p{};
  p.activation = arguments.activation("activation", activation);
  const ScalarType type = x.scalar_type();
  p.element = element_of(type);
  p.features = weights.features(), p.outputs = outputs;
  p.rates = rates.data(), p.rate_count = static_cast<int64_t>(rates.size());
  const Products products;
  const Tensor panels = arguments.packed(packed, products, weights);
  p.packed = static_cast<const float*>(panels.const_data_ptr());

  Tensor y = empty_channels_last(x.size(0), outputs, x.size(2), x.size(3), type);
  if (x.size(0) == 0) return y;
  p.x = image_batch(x, true);
  p.y = y.mutable_data_ptr();
  const bool direct = p.element == Element::float32 && p.x.channel_stride == 1;
  Tensor pixels = empty_floats(direct ? 0 : product_of(p.x.batch, p.x.height, p.x.width, channels));
  if (!direct) p.pixels = static_cast<float*>(pixels.mutable_data_ptr());
  Tensor image_bias = empty_floats(product_of(p.x.batch, round_up(outputs, kBlock)));
  p.image_bias = static_cast<float*>(image_bias.mutable_data_ptr());
  split(p, torch::stable::get_num_threads());
  const int isa = static_cast<int>(products.isa);
  parallel_for(aspp_pool_tasks(p), [&](int64_t begin, int64_t end) { kPoolVariants[isa](p, begin, end); });
  parallel_for(aspp_tasks(p), [&](int64_t begin, int64_t end) { kVariants[isa](p, begin, end); });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) {
  m.impl("aspp.cpu", TORCH_BOX(&aspp));
  m.impl("aspp.cpu_pack", TORCH_BOX(&pack));
}

}  // namespace mobilevit_fast::cpu
