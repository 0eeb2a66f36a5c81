// torch.ops.mobilevit_fast.mobilevit_transformer.cuda: checks, memory, launches.
#include "mobilevit_transformer.h"

#include <cmath>

#include "cuda/binding.h"
#include "cuda/program/program.h"
#include "cuda/sm90/small_binding_sm90.h"
#include "cuda/sm90/transformer_stack_sm90.h"
#include "resize.h"

namespace mobilevit_fast::cuda {
namespace {

struct Sizes {
  int64_t width, channels, layers, hidden, outputs;
};

// Sizes and what follows from them.
void fill_sizes(const Arguments& arguments, const Tensor& x, const Sizes& sizes, int64_t num_heads,
                const std::vector<int64_t>& patch_size, double eps, MobileViTTransformerParams& p) {
  const int64_t d = sizes.width;
  arguments.channels(sizes.channels);
  arguments.multiple_of_eight("channels", sizes.channels);
  arguments.multiple_of_eight("hidden channels of the transformer", d);
  arguments.multiple_of_eight("hidden units", sizes.hidden);
  arguments.multiple_of_eight("output channels", sizes.outputs);
  arguments.expect(d <= kMaxFeatures, "at most ", kMaxFeatures, " hidden channels of the transformer, got ", d);
  arguments.expect(num_heads >= 1 && d % num_heads == 0 && d / num_heads % 2 == 0 && d / num_heads <= kMaxHeadDim,
                   "heads of an even number of channels, at most ", kMaxHeadDim, ", got ", num_heads, " heads of ", d,
                   " channels");
  arguments.pair("patch_size", patch_size, 1);
  arguments.expect(patch_size[0] < 1 << 15 && patch_size[1] < 1 << 15,
                   "a patch of fewer than 2^15 rows and columns, got ", patch_size[0], "x", patch_size[1]);
  arguments.pixels();
  arguments.expect(eps >= 0, "an epsilon of at least 0, got ", eps);
  const auto whole = [](int64_t size, int64_t patch) { return (size + patch - 1) / patch * patch; };
  arguments.small("rows", x.size(2)), arguments.small("columns", x.size(3));
  const int64_t pixels = product_of(whole(x.size(2), patch_size[0]), whole(x.size(3), patch_size[1]));
  arguments.small("pixels", pixels), arguments.small("pixels", product_of(x.size(0), pixels));
  p.batch = static_cast<int>(x.size(0)), p.channels = static_cast<int>(x.size(1));
  p.features = static_cast<int>(d), p.hidden = arguments.small("hidden units", sizes.hidden);
  p.layers = arguments.small("layers", sizes.layers);
  p.outputs = arguments.small("channels", sizes.outputs);
  p.heads = static_cast<int>(num_heads);
  p.patch_h = static_cast<int>(patch_size[0]), p.patch_w = static_cast<int>(patch_size[1]);
  p.eps = static_cast<float>(eps);
  p.score_scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(d / num_heads)));
  p.height = round_up(static_cast<int>(x.size(2)), p.patch_h);
  p.width = round_up(static_cast<int>(x.size(3)), p.patch_w);
  p.complete();
}

// In the order of mobilevit_fast/kernels/cuda/mobilevit_transformer.py.
SmallStack fill_weights(const Arguments& arguments, const Tensor& packed, MobileViTTransformerParams& p) {
  PackedParts parts(arguments, packed);
  const auto linear = [&](int layers, int inputs, int outputs) {
    const int64_t pieces = product_of(ceil_div(inputs, kMatrixDepth), ceil_div(outputs, kPairColumns), kWarpSize);
    return parts.take<Bytes16>(product_of(layers, pieces));
  };
  const auto vector = [&](int layers, int size) {
    return parts.take<Float2>(product_of(layers, round_up(size, kPairColumns)) / 2);
  };
  const auto norm = [&](int count) {
    const Float2* weight = vector(count, p.features);
    return NormVectors{weight, vector(count, p.features)};
  };
  const int qkv = p.heads * p.head_pairs * kPairColumns, layers = p.layers, d = p.features;
  p.in_weight = linear(1, p.channels, d), p.in_bias = vector(1, d);
  p.norm1 = norm(layers);
  p.qkv_weight = linear(layers, d, qkv), p.qkv_bias = vector(layers, qkv);
  p.proj_weight = linear(layers, d, d), p.proj_bias = vector(layers, d);
  p.norm2 = norm(layers);
  p.fc1_weight = linear(layers, d, p.hidden), p.fc1_bias = vector(layers, p.hidden);
  p.fc2_weight = linear(layers, p.hidden, d), p.fc2_bias = vector(layers, d);
  p.norm = norm(1);
  p.out_weight = linear(1, d, p.outputs), p.out_scale = vector(1, p.outputs), p.out_bias = vector(1, p.outputs);
  p.stream = nullptr;
  const int64_t stream_bytes = parts.sm90() ? transformer_stack_sm90_bytes(p) : 0;
  if (stream_bytes > 0) p.stream = parts.take<Bytes16>(stream_bytes / sizeof(Bytes16));
  const SmallStack few(parts, p);
  parts.check();
  return few;
}

template <class T>
Tensor resized(const Arguments& arguments, const Tensor& x, int height, int width, Activation activation,
               cudaStream_t stream) {
  Tensor y = empty_image(x, x.size(0), x.size(1), height, width);
  const auto size = [&](int dimension) { return static_cast<int>(x.size(dimension)); };
  const ResizeParams p{x.const_data_ptr(), y.mutable_data_ptr(), size(0), size(2), size(3), size(1), height, width,
                       activation};
  arguments.small("blocks", y.numel() / (8 * 256));
  arguments.launched(resize<T>(p, stream));
  return y;
}

template <class T>
void run_stack(const Arguments& arguments, const Tensor& x, const SmallStack& few, MobileViTTransformerParams& p,
               cudaStream_t stream) {
  const bool many = p.stream != nullptr && choose_transformer_stack_sm90(p);
  if (few.takes(p, many)) return arguments.launched(few.run<T>(p, stream));
  if (many) {
    const bool whole = p.tokens == transformer_stack_sm90_tokens(p);
    return arguments.launched((whole ? transformer_stack_sm90<T> : transformer_stack_masked_sm90<T>)(p, stream));
  }
  arguments.expect(choose_transformer<T>(p), "channels that shared memory holds, got ", p.channels, ", ", p.features,
                   " hidden channels, ", p.hidden, " hidden units, ", p.outputs, " output channels");
  if (p.rows == 0) {
    return arguments.launched(
        (p.by_warps ? mobilevit_transformer_warps<T> : mobilevit_transformer_stack<T>)(p, stream));
  }
  // What one launch writes, the next one reads.
  const Tensor residual[] = {empty(x, {p.residual_numbers()}), empty(x, {p.residual_numbers()})};
  const Tensor qkv[] = {empty(x, {p.qkv_numbers()}), empty(x, {p.qkv_numbers()})};
  for (p.launch = 0; p.launch <= p.layers; ++p.launch) {
    const int to = p.launch % 2;
    p.residual_out = residual[to].mutable_data_ptr(), p.qkv_out = qkv[to].mutable_data_ptr();
    p.residual_in = residual[1 - to].const_data_ptr(), p.qkv_in = qkv[1 - to].const_data_ptr();
    arguments.launched(mobilevit_transformer_layer<T>(p, stream));
  }
}

// Resizing to whole patches and back commutes with a linear layer, whose weights it leaves alone and whose bias, as its
// own weights add up to 1; so it comes before the convolution in, and behind the one out.
template <class T>
Tensor run(const Arguments& arguments, const Tensor& x, const SmallStack& few, MobileViTTransformerParams& p,
           cudaStream_t stream) {
  const int height = static_cast<int>(x.size(2)), width = static_cast<int>(x.size(3));
  const bool whole = p.height == height && p.width == width;
  const Activation last = p.out_activation;
  Tensor input = dense_image(x), y = empty_image(x, p.batch, p.outputs, p.height, p.width);
  if (!whole) {
    p.out_activation = Activation::none;
    input = resized<T>(arguments, input, p.height, p.width, Activation::none, stream);
  }
  p.x = input.const_data_ptr(), p.y = y.mutable_data_ptr();
  run_stack<T>(arguments, x, few, p, stream);
  return whole ? y : resized<T>(arguments, y, height, width, last, stream);
}

Tensor mobilevit_transformer_op(Tensor x, Tensor packed, int64_t width, int64_t channels, int64_t layers,
                                int64_t hidden, int64_t outputs, int64_t num_heads, std::vector<int64_t> patch_size,
                                double eps, std::string mlp_activation, std::string out_activation) {
  const Arguments arguments("mobilevit_transformer", x, packed, false, width, channels, layers, hidden, outputs);
  MobileViTTransformerParams p{};
  fill_sizes(arguments, x, {width, channels, layers, hidden, outputs}, num_heads, patch_size, eps, p);
  p.mlp_activation = arguments.activation("mlp_activation", mlp_activation);
  p.out_activation = arguments.activation("out_activation", out_activation);
  const SmallStack few = fill_weights(arguments, packed, p);

  const Target target(x);
  if (p.batch == 0) return empty_image(x, 0, p.outputs, x.size(2), x.size(3));
  const auto run_as = x.scalar_type() == ScalarType::Half ? run<Half> : run<BFloat16>;
  return run_as(arguments, x, few, p, target.stream());
}

[[maybe_unused]] const bool kInPrograms = in_programs<&mobilevit_transformer_op>("mobilevit_transformer");

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) {
  m.impl("mobilevit_transformer.cuda", TORCH_BOX(&mobilevit_transformer_op));
}

}  // namespace mobilevit_fast::cuda
