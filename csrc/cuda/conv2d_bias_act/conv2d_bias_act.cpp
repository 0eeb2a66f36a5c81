// torch.ops.mobilevit_fast.conv2d_bias_act.cuda: checks, memory, launch.
#include "conv2d_bias_act.h"

#include "conv2d_binding.h"
#include "conv2d_stem.h"
#include "cuda/program/program.h"
#include "cuda/sm90/atrous_sm90.h"
#include "cuda/sm90/conv3x3_sm90.h"
#include "cuda/sm90/small_binding_sm90.h"
#include "cuda/sm90/stem_sm90.h"

namespace mobilevit_fast::cuda {
namespace {

// The tile where channels are few, or what a test of the emulator asks for: {height, width}.
Conv2dStemTile stem_tile_for(const Conv2dShape& shape) {
#if defined(MVF_EMULATED)
  const std::vector<int>& asked = emulator::Log::get().tile;
  if (asked.size() == 2) return {asked[0], asked[1]};
#endif
  return choose_conv2d_stem_tile(shape, current_chip().processors);
}

// Elements are loaded one by one, so the image may begin anywhere.
cudaError_t run_stem(const Arguments& arguments, const Tensor& x, PackedParts& parts, const Conv2dShape& shape,
                     Activation activation, Tensor& y, cudaStream_t stream) {
  const int numbers = shape.kernel_h * shape.kernel_w * shape.channels;
  const Conv2dParameters parameters(parts, (numbers + 15) / 16, shape.outputs);
  StemSm90Params sm90{};
  if (parts.sm90() && stem_sm90_has(shape.channels, shape.outputs, shape.kernel_h, shape.kernel_w)) {
    sm90.weight = parts.take<uint32_t>(kStemSm90WeightBytes / 4);
    sm90.bias = parts.take<float>(kStemSm90Places * kStemSm90Outputs);
  }
  parts.check();
  if (shape.batch == 0) return cudaSuccess;
  Conv2dStemParams p{};
  p.shape = shape, p.activation = activation;
  p.bytes = x.scalar_type() == ScalarType::Byte, p.image_channels = static_cast<int>(x.size(1));
  p.planar = x.is_contiguous();
  const Tensor input = p.planar ? x : torch::stable::contiguous(x, torch::headeronly::MemoryFormat::ChannelsLast);
  p.x = input.const_data_ptr(), p.y = y.mutable_data_ptr();
  if (sm90.weight != nullptr && current_chip().capability == 90 &&
      takes_stem_sm90(shape, activation, p.image_channels, p.x)) {
    sm90.x = p.x, sm90.y = p.y, sm90.scale = &parameters.scale->x, sm90.planar = p.planar, sm90.bytes = p.bytes;
    sm90.batch = shape.batch, sm90.height = shape.height, sm90.width = shape.width;
    sm90.out_h = shape.out_h, sm90.out_w = shape.out_w;
    return y.scalar_type() == ScalarType::Half ? stem_sm90<Half>(sm90, stream) : stem_sm90<BFloat16>(sm90, stream);
  }
  p.weight = parameters.weight, p.scale = parameters.scale, p.bias = parameters.bias;
  const Conv2dStemTile tile = stem_tile_for(shape);
  arguments.expect(tile.height > 0, "a window that shared memory holds, got one of dilation [", shape.dilation_h, ", ",
                   shape.dilation_w, "]");
  p.tile_h = tile.height, p.tile_w = tile.width;
  return y.scalar_type() == ScalarType::Half ? conv2d_stem<Half>(p, stream) : conv2d_stem<BFloat16>(p, stream);
}

// The variant of the kernel for compute capability 9.0, or what a test of the emulator asks for: {variant}; -1 where
// the other kernel runs.
int conv3x3_sm90_variant_for(const Conv2dShape& shape, Activation activation) {
  const Chip chip = current_chip();
  if (chip.capability != 90) return -1;
  const int chosen = choose_conv3x3_sm90(shape, activation, chip.processors);
#if defined(MVF_EMULATED)
  const std::vector<int>& asked = emulator::Log::get().tile;
  if (chosen >= 0 && asked.size() == 1) return asked[0];
#endif
  return chosen;
}

// A convolution of 1x1, or of 3x3 with dilation, as an ASPP has them on compute capability 9.0: slices of its outputs
// are convolutions side by side. Its packed weights are there for one input and for two.
class AtrousConv {
 public:
  AtrousConv(PackedParts& parts, const Conv2dShape& s, const Conv2dParameters& own) {
    const auto window = [&](int size) { return s.kernel_h == size && s.kernel_w == size; };
    const bool dilated = window(3) && s.dilation_h == s.dilation_w && s.dilation_h > 1;
    const int taps = window(1) ? 1 : 9, rate = window(1) ? 0 : s.dilation_h;
    const int64_t inputs = int64_t{1} * s.channels + s.channels2;
    p_.outputs = atrous_sm90_slice(inputs, s.outputs);
    if (!parts.sm90() || p_.outputs == 0 || !(window(1) || dilated)) return;
    for (int first = 0; first < s.outputs; first += p_.outputs) {
      const auto* weight = parts.take<Bytes16>(taps * inputs * p_.outputs / kPieceNumbers);
      p_.convolutions[p_.count++] = {weight, &own.scale->x + first, &own.bias->x + first, taps, rate};
    }
    p_.images = s.batch, p_.height = s.height, p_.width = s.width, p_.channels = s.channels;
    fits_ = s.channels2 == 0 && s.stride_h == 1 && s.stride_w == 1 && s.padding_h == rate && s.padding_w == rate;
  }

  // Where pixels fill a quarter of the tiles, and tiles half of the chip.
  bool takes() const {
    const int64_t squares = int64_t{1} * ceil_div(p_.height, kAtrousSm90Height) * ceil_div(p_.width, kAtrousSm90Width);
    const int64_t pixels = int64_t{1} * p_.height * p_.width;
    return fits_ && current_chip().capability == 90 && 4 * pixels >= kAtrousSm90Height * kAtrousSm90Width * squares &&
           2 * squares * p_.count * p_.images >= current_chip().processors;
  }
  cudaError_t run(const Tensor& x, Activation activation, Tensor& y, cudaStream_t stream) const {
    AtrousSm90Params p = p_;
    p.x = x.const_data_ptr(), p.y = y.mutable_data_ptr(), p.activation = activation;
    return is_half(x) ? atrous_sm90<Half>(p, stream) : atrous_sm90<BFloat16>(p, stream);
  }

 private:
  AtrousSm90Params p_{};
  bool fits_ = false;
};

cudaError_t run_product(const Arguments& arguments, const Tensor& x, const OptionalTensor& x2, PackedParts& parts,
                        const Conv2dShape& shape, Activation activation, Tensor& y, cudaStream_t stream) {
  const int64_t taps = product_of(shape.kernel_h, shape.kernel_w);
  const Conv2dParameters parameters(parts, product_of(conv2d_units(shape), taps), shape.outputs);
  const int64_t sm90_bytes = conv3x3_sm90_weight_bytes(int64_t{1} * shape.channels + shape.channels2, shape.outputs,
                                                       shape.kernel_h, shape.kernel_w);
  const Bytes16* sm90_weight = nullptr;
  if (parts.sm90() && sm90_bytes > 0) sm90_weight = parts.take<Bytes16>(sm90_bytes / 16);
  const AtrousConv atrous(parts, shape, parameters);
  const SmallConv few(parts, shape);
  parts.check();
  if (shape.batch == 0) return cudaSuccess;
  const bool two = shape.channels2 > 0;
  const Tensor input = dense_image(x), second = two ? dense_image(*x2) : input;
  const int sm90_variant = sm90_weight != nullptr ? conv3x3_sm90_variant_for(shape, activation) : -1;
  if (few.takes(activation, sm90_variant >= 0)) {
    return few.run(input, two ? &second : nullptr, parameters.scale, parameters.bias, y, stream);
  }
  if (atrous.takes()) return atrous.run(input, activation, y, stream);
  if (sm90_variant >= 0) {
    Conv3x3Sm90Params p{};
    p.x = input.const_data_ptr(), p.x2 = second.const_data_ptr(), p.y = y.mutable_data_ptr();
    p.weight = sm90_weight, p.scale = &parameters.scale->x, p.bias = &parameters.bias->x;
    p.images = shape.batch, p.height = shape.height, p.width = shape.width;
    return x.scalar_type() == ScalarType::Half ? conv3x3_sm90<Half>(sm90_variant, p, stream)
                                               : conv3x3_sm90<BFloat16>(sm90_variant, p, stream);
  }
  const Conv2dResults results{y.mutable_data_ptr(), shape.outputs, nullptr};
  return run_conv2d(arguments, x.scalar_type(), input.const_data_ptr(), two ? second.const_data_ptr() : nullptr, shape,
                    parameters, activation, results, stream);
}

Tensor conv2d_bias_act_op(Tensor x, OptionalTensor x2, Tensor packed, int64_t outputs, int64_t channels,
                          int64_t kernel_h, int64_t kernel_w, std::vector<int64_t> stride, std::vector<int64_t> padding,
                          std::vector<int64_t> dilation, std::string activation) {
  const Arguments arguments("conv2d_bias_act", x, packed, true, outputs, channels, kernel_h, kernel_w);
  const int64_t channels2 = x2 ? channels - x.size(1) : 0;
  if (x2) arguments.second(*x2, channels2);
  if (x.scalar_type() == ScalarType::Byte) {
    arguments.expect(x.size(1) == channels || x.size(1) == channels - 1, "input of ", channels, " channels, or ",
                     channels - 1, " and a constant, got ", x.size(1));
    arguments.expect(!x2 && channels % 8 != 0, "few channels of one input where it is torch.uint8, got ", channels);
  } else {
    arguments.channels(channels - channels2);
  }
  const Activation after = arguments.activation("activation", activation);

  int64_t out_h = 0, out_w = 0;
  arguments.pair("stride", stride, 1), arguments.pair("padding", padding, 0), arguments.pair("dilation", dilation, 1);
  check_conv2d_reach(arguments, x, kernel_h, kernel_w, stride, padding, dilation);
  arguments.window(kernel_h, kernel_w, stride, padding, dilation, out_h, out_w);
  arguments.small("pixels", product_of(x.size(0), x.size(2), x.size(3))),
      arguments.small("pixels", product_of(x.size(0), out_h, out_w));
  const auto as_int = [&](int64_t value) { return arguments.small("channels", value); };
  const Conv2dShape shape{
      as_int(x.size(0)),  as_int(x.size(2)),  as_int(x.size(3)),   as_int(channels - channels2),
      as_int(channels2),  as_int(outputs),    as_int(out_h),       as_int(out_w),
      as_int(kernel_h),   as_int(kernel_w),   as_int(stride[0]),   as_int(stride[1]),
      as_int(padding[0]), as_int(padding[1]), as_int(dilation[0]), as_int(dilation[1]),
  };
  const bool stem = channels % 8 != 0;
  arguments.expect(!stem || (!x2 && kernel_h * kernel_w * channels <= kConv2dStemNumbers),
                   "channels that are a multiple of 8, or a window of at most ", kConv2dStemNumbers,
                   " numbers of one input, got ", channels, " channels and a window of ", kernel_h, "x", kernel_w);
  arguments.expect(!x2 || (shape.channels % 16 == 0 && channels2 % 8 == 0),
                   "channels of the first of two inputs that are a multiple of 16, got ", shape.channels);

  const Target target(x);
  Tensor y = empty_image(packed, shape.batch, outputs, out_h, out_w);
  PackedParts parts(arguments, packed);
  arguments.launched(stem ? run_stem(arguments, x, parts, shape, after, y, target.stream())
                          : run_product(arguments, x, x2, parts, shape, after, y, target.stream()));
  return y;
}

[[maybe_unused]] const bool kInPrograms = in_programs<&conv2d_bias_act_op>("conv2d_bias_act");

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) {
  m.impl("conv2d_bias_act.cuda", TORCH_BOX(&conv2d_bias_act_op));
}

}  // namespace mobilevit_fast::cuda
