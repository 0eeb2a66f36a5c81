// The kernels for few images on compute capability 9.0 as bindings see them: each takes its packed parameters, which
// are the last ones, if they are there, says whether it is to run, and runs.
#pragma once

#include "cuda/binding.h"
#include "cuda/classifier_head/classifier_head.h"
#include "cuda/conv2d_bias_act/conv2d_bias_act.h"
#include "cuda/inverted_residual/inverted_residual.h"
#include "cuda/mobilevit_transformer/mobilevit_transformer.h"
#include "few_images_sm90.h"
#include "small_conv_sm90.h"
#include "small_head_sm90.h"
#include "small_residual_sm90.h"
#include "small_stack_sm90.h"

namespace mobilevit_fast::cuda {

constexpr int kFewImages = 8;  // that these kernels take, at most

// Whether so many images are for these kernels: at most `images`, where they are faster than those for every chip.
// Beside a kernel for many images on compute capability 9.0 (`large`) only as long as their blocks run about at once,
// since that one's time hardly falls with the number of images.
inline bool few_images(int64_t batch, int64_t blocks, bool large, int64_t most_blocks, int64_t images = kFewImages) {
#if defined(MVF_EMULATED)
  if (!emulator::Log::get().tile.empty()) return false;  // a test asks for a tile of another kernel
#endif
  return blocks > 0 && batch <= images && current_chip().capability == 90 && (!large || blocks <= most_blocks);
}

inline bool is_half(const Tensor& x) { return x.scalar_type() == ScalarType::Half; }

class SmallConv {
 public:
  SmallConv(PackedParts& parts, const Conv2dShape& s) {
    const int inputs = s.channels + s.channels2;
    if (!parts.sm90() || s.kernel_h != 3 || s.kernel_w != 3 || !has_small_conv(inputs, s.outputs)) return;
    p_.weight = parts.take<Bytes16>(small_conv_weight_bytes(inputs, s.outputs) / 16);
    p_.batch = s.batch, p_.height = s.height, p_.width = s.width;
    p_.channels = s.channels, p_.channels2 = s.channels2, p_.outputs = s.outputs;
    fits_ = s.stride_h == 1 && s.stride_w == 1 && s.padding_h == 1 && s.padding_w == 1 && s.dilation_h == 1 &&
            s.dilation_w == 1;
  }

  bool takes(Activation activation, bool large) const {
    constexpr int64_t kMaxBlocks = 256;  // a convolution takes two turns of them in 1.3 to 2 times the time of one
    return fits_ && activation == Activation::silu && few_images(p_.batch, small_conv_blocks(p_), large, kMaxBlocks);
  }
  // Images are dense, the second one null where there is one input.
  cudaError_t run(const Tensor& x, const Tensor* x2, const Float2* scale, const Float2* bias, Tensor& y,
                  cudaStream_t stream) const {
    SmallConvParams p = p_;
    p.x = x.const_data_ptr(), p.x2 = x2 == nullptr ? nullptr : x2->const_data_ptr(), p.y = y.mutable_data_ptr();
    p.scale = &scale->x, p.bias = &bias->x;
    return is_half(x) ? small_conv<Half>(p, stream) : small_conv<BFloat16>(p, stream);
  }

 private:
  SmallConvParams p_{};
  bool fits_ = false;
};

class SmallResidual {
 public:
  SmallResidual() = default;
  SmallResidual(PackedParts& parts, const InvertedResidualParams& p, int stride) {
    const int64_t bytes = small_residual_weight_bytes(p.channels, p.expanded, p.outputs);
    if (!parts.sm90() || bytes == 0) return;
    p_.weights = parts.take<Bytes16>(bytes / 16);
    p_.batch = p.batch, p_.height = p.height, p_.width = p.width, p_.out_h = p.out_h, p_.out_w = p.out_w;
    p_.channels = p.channels, p_.expanded = p.expanded, p_.outputs = p.outputs, p_.stride = stride;
    const bool adds = stride == 1 && p.channels == p.outputs;
    fits_ = p.padding == 1 && p.dilation == 1 && p.residual == adds && p.activation == Activation::silu;
  }

  bool takes(bool large) const {
    constexpr int64_t kMaxBlocks = 128;
    const int most = few_images_of(FewOperator::inverted_residual, p_.channels, p_.expanded, p_.outputs, kFewImages);
    return fits_ && few_images(p_.batch, small_residual_blocks(p_), large, kMaxBlocks, most);
  }
  cudaError_t run(const Tensor& x, Tensor& y, cudaStream_t stream) const {
    SmallResidualParams p = p_;
    p.x = x.const_data_ptr(), p.y = y.mutable_data_ptr();
    return is_half(x) ? small_residual<Half>(p, stream) : small_residual<BFloat16>(p, stream);
  }

 private:
  SmallResidualParams p_{};
  bool fits_ = false;
};

class SmallStack {
 public:
  SmallStack(PackedParts& parts, const MobileViTTransformerParams& p) {
    size_ = {p.channels, p.features, p.layers};
    const int64_t bytes = small_stack_weight_bytes(size_);
    const bool known = bytes > 0 && p.heads == 4 && p.hidden == 2 * p.features && p.outputs == p.channels;
    if (!parts.sm90() || !known) return;
    p_.weights = parts.take<Bytes16>(bytes / 16);
    p_.batch = p.batch, p_.height = p.height, p_.width = p.width, p_.tokens = p.tokens;
    p_.score_scale = p.score_scale, p_.eps = p.eps;
    room_ = small_stack_tokens(size_);
    fits_ = p.patch_h == 2 && p.patch_w == 2 && p.mlp_activation == Activation::silu && p.tokens <= room_;
  }

  // The images of `p` are dense, and of whole patches; it says what is behind the convolution out.
  bool takes(const MobileViTTransformerParams& p, bool large) const {
    constexpr int64_t kMaxBlocks = 128;
    if (!fits_ || p.out_activation != Activation::silu) return false;
    const int most = few_images_of(FewOperator::mobilevit_transformer, size_.channels, size_.features, 0, kFewImages,
                                   static_cast<float>(p_.tokens) / static_cast<float>(room_));
    return few_images(p_.batch, small_stack_blocks(size_, p_.batch), large, kMaxBlocks, most);
  }
  template <class T>
  cudaError_t run(const MobileViTTransformerParams& images, cudaStream_t stream) const {
    SmallStackParams p = p_;
    p.x = images.x, p.y = images.y;
    return (p.tokens == room_ ? small_stack<T> : small_stack_masked<T>)(size_, p, stream);
  }

 private:
  SmallStackSize size_{};
  SmallStackParams p_{};
  int room_ = 0;  // of a sequence, for tokens
  bool fits_ = false;
};

class SmallHead {
 public:
  SmallHead(PackedParts& parts, const ClassifierHeadParams& p, int classes) {
    const int rows = small_head_rows(p.channels, p.outputs, classes);
    if (!parts.sm90() || rows == 0) return;
    p_.expand = parts.take<Bytes16>(int64_t{1} * p.outputs / 8 * ceil_div(p.channels, 32) * kWarpSize);
    p_.scale = parts.take<float>(p.outputs), p_.shift = parts.take<float>(p.outputs);
    p_.weight = parts.take<uint16_t>(int64_t{1} * rows * p.outputs), p_.bias = parts.take<float>(rows);
    p_.batch = p.batch, p_.pixels = p.pixels, p_.channels = p.channels, p_.expanded = p.outputs, p_.classes = classes;
    fits_ = p.pixels <= kSmallHeadPixels && p.activation == Activation::silu;
  }

  bool takes() const {
    const int most = few_images_of(FewOperator::classifier_head, 0, 0, 0, kFewImages);
    return fits_ && few_images(p_.batch, 1, false, 1, most);
  }
  Tensor run(const Arguments& arguments, const Tensor& x, cudaStream_t stream) const {
    const Tensor input = dense_image(x);
    Tensor y = empty(x, {p_.batch, p_.classes});
    SmallHeadParams p = p_;
    p.x = input.const_data_ptr(), p.y = y.mutable_data_ptr();
    arguments.launched(is_half(x) ? small_head<Half>(p, stream) : small_head<BFloat16>(p, stream));
    return y;
  }

 private:
  SmallHeadParams p_{};
  bool fits_ = false;
};

}  // namespace mobilevit_fast::cuda
