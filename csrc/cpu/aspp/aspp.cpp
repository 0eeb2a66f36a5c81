// torch.ops.mobilevit_fast.aspp.cpu: checks, memory, launch.
#include "aspp.h"

#include "cpu/arguments.h"
#include "cpu/packed_sizes.h"
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

Tensor pack(Tensor pointwise_weight, OptionalTensor pointwise_scale, OptionalTensor pointwise_bias,
            Tensor atrous_weight, OptionalTensor atrous_scale, OptionalTensor atrous_bias, Tensor pool_weight,
            OptionalTensor pool_scale, OptionalTensor pool_bias, Tensor project_weight, OptionalTensor project_scale,
            OptionalTensor project_bias) {
  check_rank(AsppSizes::kOp, "pointwise weight", pointwise_weight, 4);
  check_rank(AsppSizes::kOp, "atrous weight", atrous_weight, 5);
  check_rank(AsppSizes::kOp, "project weight", project_weight, 4);
  const int64_t features = pointwise_weight.size(0), channels = pointwise_weight.size(1), rates = atrous_weight.size(0);
  const AsppSizes s{features, channels, rates, project_weight.size(0), product_of(sum_of(rates, 2), features)};
  Packing packing(s, pointwise_weight);
  packing.panels("pointwise", pointwise_weight, pointwise_scale, pointwise_bias, {features, channels, 1, 1});
  packing.stacked_panels("atrous", atrous_weight, atrous_scale, atrous_bias, {rates, features, channels, 3, 3});
  packing.panels("pool", pool_weight, pool_scale, pool_bias, {features, channels, 1, 1});
  packing.split_panels("project", project_weight, project_scale, project_bias, {s.outputs, s.projected, 1, 1},
                       s.projected - features);
  return packing.finish();
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

Tensor aspp(Tensor x, Tensor packed, int64_t features, int64_t channels, int64_t atrous, int64_t outputs,
            int64_t projected, std::vector<int64_t> rates, std::string activation) {
  const Arguments arguments(x, packed, AsppSizes{features, channels, atrous, outputs, projected});
  arguments.rates(rates, atrous, features, projected);
  arguments.channels(channels);
  arguments.pixels();

  AsppParams p{};
  p.activation = arguments.activation("activation", activation);
  const ScalarType type = arguments.type();
  p.element = arguments.element();
  p.features = features, p.outputs = outputs;
  p.rates = rates.data(), p.rate_count = atrous;
  p.packed = arguments.weights;

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
  const int isa = static_cast<int>(arguments.products.isa);
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
