// torch.ops.mobilevit_fast.aspp.cuda: checks, memory, launches.
#include "aspp.h"

#include "cuda/conv2d_bias_act/conv2d_binding.h"
#include "cuda/sm90/atrous_sm90.h"

namespace mobilevit_fast::cuda {
namespace {

struct Sizes {
  int64_t features, channels, rates, outputs;

  // Features that differ from pixel to pixel.
  int64_t shared() const { return product_of(rates + 1, features); }
};

// Where the packed parameters are, in the order of mobilevit_fast/kernels/cuda/aspp.py.
struct Packed {
  std::vector<Conv2dParameters> branches;  // 1x1, and one for each rate
  Conv2dParameters project;                // over the branches that differ from pixel to pixel

  Packed(const Sizes& sizes, PackedParts& parts, AsppPoolParams& pool)
      : branches(convolutions(sizes, parts)), project(parts, sum_of(sizes.shared(), 15) / 16, sizes.outputs) {
    const int64_t features = sizes.features, outputs = sizes.outputs;
    pool.pool = parts.take<Bytes16>(product_of(features, sizes.channels) / kPieceNumbers);
    pool.pool_scale = parts.take<float>(features), pool.pool_bias = parts.take<float>(features);
    pool.project = parts.take<Bytes16>(product_of(outputs, features) / kPieceNumbers);
    pool.project_scale = parts.take<float>(outputs), pool.project_bias = parts.take<float>(outputs);
  }

 private:
  static std::vector<Conv2dParameters> convolutions(const Sizes& sizes, PackedParts& parts) {
    std::vector<Conv2dParameters> found;
    const int64_t units = sum_of(sizes.channels, 15) / 16;
    for (int64_t i = 0; i <= sizes.rates; ++i) {
      found.emplace_back(parts, i > 0 ? product_of(9, units) : units, sizes.features);
    }
    return found;
  }
};

Tensor aspp_op(Tensor x, Tensor packed, int64_t features_of_branch, int64_t channels, int64_t atrous, int64_t outputs,
               int64_t projected, std::vector<int64_t> rates, std::string activation) {
  const Sizes sizes{features_of_branch, channels, atrous, outputs};
  const Arguments arguments("aspp", x, packed, false, features_of_branch, channels, atrous, outputs, projected);
  arguments.rates(rates, atrous, features_of_branch, projected);
  arguments.channels(channels);
  arguments.pixels();
  arguments.multiple_of_eight("channels", sizes.channels);
  arguments.multiple_of_eight("features of a branch", sizes.features);
  arguments.expect(sizes.channels <= kAsppVector && sizes.features <= kAsppVector, "at most ", kAsppVector,
                   " channels, and features of a branch, got ", sizes.channels, " and ", sizes.features);
  for (const int64_t rate : rates) {
    check_conv2d_reach(arguments, x, 3, 3, {1, 1}, {rate, rate}, {rate, rate});
  }
  const int64_t height = x.size(2), width = x.size(3), features = sizes.shared();
  arguments.small("pixels", product_of(x.size(0), height, width));
  arguments.small("channels", sum_of(features, sizes.outputs));

  AsppPoolParams pool{};
  pool.batch = static_cast<int>(x.size(0)), pool.pixels = static_cast<int>(height * width);
  pool.channels = static_cast<int>(sizes.channels), pool.features = static_cast<int>(sizes.features);
  pool.outputs = static_cast<int>(sizes.outputs);
  pool.activation = arguments.activation("activation", activation);
  PackedParts parts(arguments, packed);
  const Packed parameters(sizes, parts, pool);
  std::vector<const Bytes16*> sm90_weights;  // of the branches and the projection
  if (parts.sm90() && atrous_sm90_has(sizes.channels, sizes.features, sizes.outputs, atrous)) {
    const int64_t pointwise = sizes.features * sizes.channels / kPieceNumbers;
    for (size_t i = 0; i <= rates.size(); ++i)
      sm90_weights.push_back(parts.take<Bytes16>(i > 0 ? 9 * pointwise : pointwise));
    sm90_weights.push_back(parts.take<Bytes16>(sizes.outputs * features / kPieceNumbers));
  }
  parts.check();

  const Target target(x);
  Tensor y = empty_image(x, x.size(0), sizes.outputs, height, width);
  if (pool.batch == 0) return y;
  const ScalarType type = x.scalar_type();
  const bool half = type == ScalarType::Half;
  const Tensor input = dense_image(x);
  pool.x = input.const_data_ptr();
  pool.slices = choose_aspp_slices(pool.batch, pool.pixels, current_chip().processors);
  const Tensor sums = empty_floats(x, {pool.batch, pool.slices, pool.channels});
  const Tensor image_bias = empty_floats(x, {pool.batch, round_up(pool.outputs, kPairColumns)});
  pool.sums = static_cast<float*>(sums.mutable_data_ptr());
  pool.image_bias = static_cast<float*>(image_bias.mutable_data_ptr());
  arguments.launched((half ? aspp_sums<Half> : aspp_sums<BFloat16>)(pool, target.stream()));
  arguments.launched((half ? aspp_image_bias<Half> : aspp_image_bias<BFloat16>)(pool, target.stream()));

  const Tensor branches = empty(x, {x.size(0), height, width, features});  // side by side
  if (!sm90_weights.empty() && current_chip().capability == 90) {
    AtrousSm90Params p{};
    p.images = pool.batch, p.height = static_cast<int>(height), p.width = static_cast<int>(width);
    p.activation = pool.activation, p.outputs = kAtrousSm90Aspp;
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
