// torch.ops.mobilevit_fast.mobilevit_transformer.cpu: checks, memory, launch.
#include "mobilevit_transformer.h"

#include <algorithm>
#include <cmath>

#include "cpu/arguments.h"
#include "cpu/packed_sizes.h"
#include "cpu/packing.h"
#include "cpu/parallel.h"

namespace mobilevit_fast::cpu {
namespace {

using Params = MobileViTTransformerParams;

struct Variant {
  Plan (*plan)(const Params&);
  void (*bundles)(const Params&, int64_t, int64_t);
  void (*step)(const Params&, int64_t, int64_t, int64_t);
  void (*resize)(const Params&, int64_t, int64_t);
};

#define MVF_ENTRY(isa)                                                                                   \
  {isa::mobilevit_transformer_plan, isa::mobilevit_transformer_bundles, isa::mobilevit_transformer_step, \
   isa::mobilevit_transformer_resize},
constexpr Variant kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

Tensor pack(Tensor in_weight, OptionalTensor in_bias, Tensor norm1_weight, Tensor norm1_bias, Tensor qkv_weight,
            OptionalTensor qkv_bias, Tensor proj_weight, Tensor proj_bias, Tensor norm2_weight, Tensor norm2_bias,
            Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight, Tensor fc2_bias, Tensor norm_weight,
            Tensor norm_bias, Tensor out_weight, OptionalTensor out_scale, OptionalTensor out_bias) {
  check_rank(MobileViTTransformerSizes::kOp, "in weight", in_weight, 4);
  check_rank(MobileViTTransformerSizes::kOp, "fc1 weight", fc1_weight, 3);
  check_rank(MobileViTTransformerSizes::kOp, "out weight", out_weight, 4);
  const int64_t width = in_weight.size(0), layers = fc1_weight.size(0), hidden = fc1_weight.size(1);
  const MobileViTTransformerSizes s{width, in_weight.size(1), layers, hidden, out_weight.size(0)};
  Packing packing(s, in_weight);
  packing.row_groups("in", in_weight, {}, in_bias, {width, s.channels, 1, 1});
  for (int64_t layer = 0; layer < layers; ++layer) {
    packing.norm("norm1", norm1_weight, norm1_bias, {layers, width}, layer);
    packing.row_groups("qkv", qkv_weight, {}, qkv_bias, {layers, product_of(3, width), width}, layer);
    packing.row_groups("proj", proj_weight, {}, proj_bias, {layers, width, width}, layer);
    packing.norm("norm2", norm2_weight, norm2_bias, {layers, width}, layer);
    packing.row_groups("fc1", fc1_weight, {}, fc1_bias, {layers, hidden, width}, layer);
    packing.row_groups("fc2", fc2_weight, {}, fc2_bias, {layers, width, hidden}, layer);
  }
  packing.norm("norm", norm_weight, norm_bias, {width});
  packing.row_groups("out", out_weight, out_scale, out_bias, {s.outputs, width, 1, 1});
  return packing.finish();
}

// How far the busiest of `threads` threads is behind the average when `tasks` equal tasks are dealt out.
double imbalance(int64_t tasks, int64_t threads) {
  return static_cast<double>(ceil_div(tasks, threads) * threads) / static_cast<double>(tasks);
}

void run(Params& p, const Variant& variant) {
  const int64_t threads = torch::stable::get_num_threads();
  const Plan plan = variant.plan(p);
  // Short sequences share passes over the weights as long as all threads have work.
  constexpr int64_t kBlocksPerPass = 4, kStepsCost = 15;  // per cent
  const int64_t units = plan.blocks / plan.blocks_per_unit;
  const int64_t units_per_bundle =
      std::clamp<int64_t>(units / threads, 1, larger(1, kBlocksPerPass / plan.blocks_per_unit));
  p.blocks_per_bundle = units_per_bundle * plan.blocks_per_unit;
  const int64_t bundles = ceil_div(plan.blocks, p.blocks_per_bundle);
  Tensor shared = empty_floats(0);
  if (100 * imbalance(bundles, threads) <= (100 + kStepsCost) * imbalance(plan.blocks, threads)) {
    parallel_for(bundles, [&](int64_t begin, int64_t end) { variant.bundles(p, begin, end); });
  } else {
    shared = empty_floats(plan.shared_floats);
    p.shared = static_cast<float*>(shared.mutable_data_ptr());
    for (int64_t step = 0; step <= p.layers; ++step) {
      parallel_for(plan.blocks, [&](int64_t begin, int64_t end) { variant.step(p, step, begin, end); });
    }
  }
  if (p.resized == nullptr) return;
  parallel_for(p.x.batch * p.x.height, [&](int64_t begin, int64_t end) { variant.resize(p, begin, end); });
}

Tensor mobilevit_transformer(Tensor x, Tensor packed, int64_t width, int64_t channels, int64_t layers, int64_t hidden,
                             int64_t outputs, int64_t num_heads, std::vector<int64_t> patch_size, double eps,
                             std::string mlp_activation, std::string out_activation) {
  const MobileViTTransformerSizes sizes{width, channels, layers, hidden, outputs};
  const Arguments arguments(x, packed, sizes);
  arguments.channels(channels);
  arguments.expect(num_heads >= 1 && width % num_heads == 0, "a number of heads that divides the width ", width,
                   ", got ", num_heads);
  arguments.pair("patch_size", patch_size, 1);
  arguments.expect(eps >= 0, "an epsilon of at least 0, got ", eps);
  arguments.pixels();

  Params p{};
  p.element = arguments.element();
  p.width = width, p.hidden = hidden, p.outputs = outputs, p.layers = layers, p.num_heads = num_heads;
  p.patch_h = patch_size[0], p.patch_w = patch_size[1], p.eps = static_cast<float>(eps);
  p.grid_h = ceil_div(x.size(2), p.patch_h), p.grid_w = ceil_div(x.size(3), p.patch_w);
  p.mlp_activation = arguments.activation("mlp_activation", mlp_activation);
  p.out_activation = arguments.activation("out_activation", out_activation);
  p.packed = arguments.weights, p.packed_end = p.packed + sizes.packed_words(arguments.products);
  Tensor y = empty_channels_last(x.size(0), outputs, x.size(2), x.size(3), x.scalar_type());
  if (x.size(0) == 0) return y;
  p.x = image_batch(x);
  p.y = y.mutable_data_ptr();
  const int64_t grid_height = round_up(x.size(2), p.patch_h), grid_width = round_up(x.size(3), p.patch_w);
  const bool resized = grid_height != p.x.height || grid_width != p.x.width;
  Tensor sums = empty_floats(resized ? product_of(p.x.batch, grid_height, grid_width, outputs) : 0);
  if (resized) p.resized = static_cast<float*>(sums.mutable_data_ptr());
  run(p, kVariants[static_cast<int>(arguments.products.isa)]);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) {
  m.impl("mobilevit_transformer.cpu", TORCH_BOX(&mobilevit_transformer));
  m.impl("mobilevit_transformer.cpu_pack", TORCH_BOX(&pack));
}

}  // namespace mobilevit_fast::cpu
