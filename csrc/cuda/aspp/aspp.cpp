// torch.ops.mobilevit_fast.aspp.cuda: checks, memory, launches.
#include "aspp.h"

#include "common/aspp_parameters.h"
#include "cuda/conv2d_bias_act/conv2d_binding.h"
#include "cuda/sm90/atrous_sm90.h"

namespace mobilevit_fast::cuda {
namespace {

// Where the packed parameters are, in the order of mobilevit_fast/kernels/cuda/aspp.py.
struct Packed {
  std::vector<Conv2dParameters> branches;  // 1x1, and one for each rate
  Conv2dParameters project;                // over the branches that differ from pixel to pixel

  Packed(const AsppParameters& weights, PackedParts& parts, AsppPoolParams& pool)
      : branches(convolutions(weights, parts)), project(parts, (shared(weights) + 15) / 16, weights.outputs()) {
    const int64_t features = weights.features(), outputs = weights.outputs();
    pool.pool = parts.take<Bytes16>(product_of(features, weights.channels()) / kPieceNumbers);
    pool.pool_scale = parts.take<float>(features), pool.pool_bias = parts.take<float>(features);
    pool.project = parts.take<Bytes16>(product_of(outputs, features) / kPieceNumbers);
    pool.project_scale = parts.take<float>(outputs), pool.project_bias = parts.take<float>(outputs);
  }

  // Features that differ from pixel to pixel.
  static int64_t shared(const AsppParameters& weights) {
    return product_of(weights.atrous.size(0) + 1, weights.features());
  }

 private:
  static std::vector<Conv2dParameters> convolutions(const AsppParameters& weights, PackedParts& parts) {
    std::vector<Conv2dParameters> found;
    const int64_t units = (weights.channels() + 15) / 16;
    for (int64_t i = 0; i <= weights.atrous.size(0); ++i) {
      found.emplace_back(parts, i > 0 ? product_of(9, units) : units, weights.features());
    }
    return found;
  }
};

Tensor aspp_op(Tensor x, Tensor pointwise_weight, OptionalTensor pointwise_scale, OptionalTensor pointwise_bias,
               Tensor atrous_weight, OptionalTensor atrous_scale, OptionalTensor atrous_bias, Tensor pool_weight,
               OptionalTensor pool_scale, OptionalTensor pool_bias, Tensor project_weight, OptionalTensor project_scale,
               OptionalTensor project_bias, std::vector<int64_t> rates, std::string activation, Tensor packed) {
  const Arguments arguments("aspp", x);
  const AsppParameters weights{pointwise_weight, pointwise_scale, pointwise_bias, atrous_weight,
                               atrous_scale,     atrous_bias,     pool_weight,    pool_scale,
                               pool_bias,        project_weight,  project_scale,  project_bias};
  weights.check(arguments, x, rates);
  arguments.multiple_of_eight("channels", weights.channels());
  arguments.multiple_of_eight("features of a branch", weights.features());
  arguments.expect(weights.channels() <= kAsppVector && weights.features() <= kAsppVector, "at most ", kAsppVector,
                   " channels, and features of a branch, got ", weights.channels(), " and ", weights.features());
  for (const int64_t rate : rates) {
    check_conv2d_reach(arguments, x, 3, 3, {1, 1}, {rate, rate}, {rate, rate});
  }
  const int64_t height = x.size(2), width = x.size(3), features = Packed::shared(weights);
  arguments.small("pixels", product_of(x.size(0), height, width));
  arguments.small("channels", sum_of(features, weights.outputs()));

  AsppPoolParams pool{};
  pool.batch = static_cast<int>(x.size(0)), pool.pixels = static_cast<int>(height * width);
  pool.channels = static_cast<int>(weights.channels()), pool.features = static_cast<int>(weights.features());
  pool.outputs = static_cast<int>(weights.outputs());
  pool.activation = arguments.activation("activation", activation);
  PackedParts parts(packed);
  const Packed parameters(weights, parts, pool);
  std::vector<const Bytes16*> sm90_weights;  // of the branches and the projection
  if (parts.more(packed) &&
      atrous_sm90_has(weights.channels(), weights.features(), weights.outputs(), atrous_weight.size(0))) {
    const int64_t pointwise = weights.features() * weights.channels() / kPieceNumbers;
    for (size_t i = 0; i <= rates.size(); ++i)
      sm90_weights.push_back(parts.take<Bytes16>(i > 0 ? 9 * pointwise : pointwise));
    sm90_weights.push_back(parts.take<Bytes16>(weights.outputs() * features / kPieceNumbers));
  }
  arguments.check_packed(packed, parts);

  const Target target(x);
  Tensor y = empty_image(x, x.size(0), weights.outputs(), height, width);
  if (pool.batch == 0) return y;
  const ScalarType type = x.scalar_type();
  const bool half = type == ScalarType::Half;
  const Tensor input = dense_image(x);
  pool.x = input.const_data_ptr();
  pool.slices = choose_aspp_slices(pool.batch, pool.pixels, current_chip().processors);
  const Tensor sums = empty(packed, {pool.batch, pool.slices, pool.channels});
  const Tensor image_bias = empty(packed, {pool.batch, round_up(pool.outputs, kPairColumns)});
  pool.sums = static_cast<float*>(sums.mutable_data_ptr());
  pool.image_bias = static_cast<float*>(image_bias.mutable_data_ptr());
  arguments.launched((half ? aspp_sums<Half> : aspp_sums<BFloat16>)(pool, target.stream()));
  arguments.launched((half ? aspp_image_bias<Half> : aspp_image_bias<BFloat16>)(pool, target.stream()));

  const Tensor branches = empty(x, {x.size(0), height, width, features});  // side by side
  if (!sm90_weights.empty() && current_chip().capability == 90) {
    AtrousSm90Params p{};
    p.images = pool.batch, p.height = static_cast<int>(height), p.width = static_cast<int>(width);
    p.activation = pool.activation;
    const auto convolution = [&](size_t i, int rate, const Conv2dParameters& own) {
      return AtrousSm90Convolution{sm90_weights[i], &own.scale->x, &own.bias->x, rate > 0 ? 9 : 1, rate};
    };
    const auto convolve = [&](const void* from, int channels, void* to) {
      p.x = from, p.channels = channels, p.y = to;
      arguments.launched((half ? atrous_sm90<Half> : atrous_sm90<BFloat16>)(p, target.stream()));
    };
    for (size_t i = 0; i < parameters.branches.size(); ++i) {
      p.convolutions[p.count++] = convolution(i, i > 0 ? static_cast<int>(rates[i - 1]) : 0, parameters.branches[i]);
    }
    convolve(pool.x, pool.channels, branches.mutable_data_ptr());
    p.count = 1, p.image_bias = pool.image_bias;
    p.convolutions[0] = convolution(parameters.branches.size(), 0, parameters.project);
    convolve(branches.const_data_ptr(), static_cast<int>(features), y.mutable_data_ptr());
    return y;
  }
  const auto convolve = [&](const void* from, int channels, int outputs, int kernel, int rate,
                            const Conv2dParameters& own, const Conv2dResults& results) {
    const int padding = kernel / 2 * rate, h = static_cast<int>(height), w = static_cast<int>(width);
    const Conv2dShape shape{pool.batch, h,      w, channels, 0,       outputs, h,    w,
                            kernel,     kernel, 1, 1,        padding, padding, rate, rate};
    arguments.launched(
        run_conv2d(arguments, type, from, nullptr, shape, own, pool.activation, results, target.stream()));
  };
  for (size_t i = 0; i < parameters.branches.size(); ++i) {
    char* to = static_cast<char*>(branches.mutable_data_ptr()) + i * pool.features * sizeof(Half);
    const Conv2dResults results{to, static_cast<int>(features), nullptr};
    const int rate = i > 0 ? static_cast<int>(rates[i - 1]) : 1;
    convolve(pool.x, pool.channels, pool.features, i > 0 ? 3 : 1, rate, parameters.branches[i], results);
  }
  const Conv2dResults results{y.mutable_data_ptr(), pool.outputs, reinterpret_cast<const Float2*>(pool.image_bias)};
  convolve(branches.const_data_ptr(), static_cast<int>(features), pool.outputs, 1, 1, parameters.project, results);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) { m.impl("aspp.cuda", TORCH_BOX(&aspp_op)); }

}  // namespace mobilevit_fast::cuda
