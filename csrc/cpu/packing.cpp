#include "packing.h"

#include <algorithm>
#include <cstring>

#include "cpu/arguments.h"
#include "cpu/conv2d_bias_act/conv2d_bias_act.h"

namespace mobilevit_fast::cpu {
namespace {

// Elements of a tensor of float32 or bfloat16, wherever its strides put them, and words of `factors` that are `step`
// apart.
class Reader {
 public:
  explicit Reader(const Tensor& tensor)
      : data_(tensor.const_data_ptr()), wide_(tensor.scalar_type() == ScalarType::Float) {}

  float operator[](int64_t offset) const {
    if (wide_) return static_cast<const float*>(data_)[offset];
    const uint32_t bits = uint32_t{static_cast<const uint16_t*>(data_)[offset]} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

  float word(int64_t offset, int64_t step, int64_t factors) const {
    if (factors == 1) return (*this)[offset];
    const uint16_t* numbers = static_cast<const uint16_t*>(data_);
    const uint32_t bits = numbers[offset] | uint32_t{numbers[offset + step]} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

 private:
  const void* data_;
  bool wide_;
};

// Entry `i` of vector `row` of a tensor (outputs,) or (rows, outputs); `missing` where there is none.
class Values {
 public:
  Values(const OptionalTensor& tensor, int64_t row, float missing) : missing_(missing) {
    if (!tensor) return;
    reader_.emplace(*tensor);
    step_ = tensor->stride(tensor->dim() - 1);
    begin_ = tensor->dim() > 1 ? row * tensor->stride(0) : 0;
  }

  float operator[](int64_t i) const { return reader_ ? (*reader_)[begin_ + i * step_] : missing_; }

 private:
  std::optional<Reader> reader_;
  int64_t begin_ = 0, step_ = 0;
  float missing_;
};

float* append(const Values& values, int64_t count, int64_t padded, float* target) {
  for (int64_t i = 0; i < padded; ++i) *target++ = i < count ? values[i] : 0.0f;
  return target;
}

float* append_affine(const OptionalTensor& scale, const OptionalTensor& bias, int64_t row, int64_t count,
                     int64_t padded, float* target) {
  target = append(Values(scale, row, 1.0f), count, padded, target);
  return append(Values(bias, row, 0.0f), count, padded, target);
}

// `factors` products make a word and divide the channels.
float* pack_panels(const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias, int64_t factors,
                   float* target) {
  const Reader read(weight);
  const bool window = weight.dim() == 4;
  const int64_t outputs = weight.size(0), channels = weight.size(1);
  const int64_t kernel_h = window ? weight.size(2) : 1, kernel_w = window ? weight.size(3) : 1;
  const int64_t step_h = window ? weight.stride(2) : 0, step_w = window ? weight.stride(3) : 0;
  for (int64_t panel = 0; panel < panel_count(outputs); ++panel) {
    const int64_t begin = panel_begin(outputs, panel), end = panel_begin(outputs, panel + 1);
    for (int64_t kh = 0; kh < kernel_h; ++kh) {
      for (int64_t kw = 0; kw < kernel_w; ++kw) {
        for (int64_t c = 0; c < channels; c += factors) {
          const int64_t offset = c * weight.stride(1) + kh * step_h + kw * step_w;
          for (int64_t o = begin; o < end; ++o) {
            *target++ = o < outputs ? read.word(o * weight.stride(0) + offset, weight.stride(1), factors) : 0.0f;
          }
        }
      }
    }
  }
  return append_affine(scale, bias, 0, outputs, round_up(outputs, kBlock), target);
}

float* pack_winograd(const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias, float* target) {
  // Lavin and Gray, arXiv 1509.09308, section 4.1.
  constexpr double kG[kWinogradSide][3] = {{1.0, 0.0, 0.0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0.0, 0.0, 1.0}};
  const Reader read(weight);
  const int64_t outputs = weight.size(0), channels = weight.size(1);
  for (int64_t panel = 0; panel < panel_count(outputs); ++panel) {
    const int64_t begin = panel_begin(outputs, panel), width = panel_begin(outputs, panel + 1) - begin;
    const int64_t entry = channels * width;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < width; ++i) {
        const int64_t offset = (begin + i) * weight.stride(0) + c * weight.stride(1);
        double g[3][3] = {};
        for (int64_t k = 0; k < 9 && begin + i < outputs; ++k) {
          g[k / 3][k % 3] = read[offset + k / 3 * weight.stride(2) + k % 3 * weight.stride(3)];
        }
        for (int64_t row = 0; row < kWinogradSide; ++row) {
          double line[3];  // of G g
          for (int64_t k = 0; k < 3; ++k) line[k] = kG[row][0] * g[0][k] + kG[row][1] * g[1][k] + kG[row][2] * g[2][k];
          for (int64_t column = 0; column < kWinogradSide; ++column) {
            const double sum = line[0] * kG[column][0] + line[1] * kG[column][1] + line[2] * kG[column][2];
            target[(row * kWinogradSide + column) * entry + c * width + i] = static_cast<float>(sum);
          }
        }
      }
    }
    target += kWinogradEntries * entry;
  }
  return append_affine(scale, bias, 0, outputs, round_up(outputs, kBlock), target);
}

float* pack_depthwise(const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias, float* target) {
  const Reader read(weight);
  const int64_t channels = weight.size(0), padded = round_up(channels, kBlock);
  for (int64_t kh = 0; kh < weight.size(2); ++kh) {
    for (int64_t kw = 0; kw < weight.size(3); ++kw) {
      const int64_t offset = kh * weight.stride(2) + kw * weight.stride(3);
      for (int64_t c = 0; c < padded; ++c) *target++ = c < channels ? read[c * weight.stride(0) + offset] : 0.0f;
    }
  }
  return append_affine(scale, bias, 0, channels, padded, target);
}

float* pack_row_groups(const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias, int64_t layer,
                       const Products& products, float* target) {
  const Reader read(weight);
  const int64_t rank = weight.dim() == 4 ? 0 : 1;  // a 1x1 convolution has no layers
  const int64_t outputs = weight.size(rank), channels = weight.size(rank + 1), factors = products.factors;
  const int64_t begin = rank == 1 ? layer * weight.stride(0) : 0;
  const RowGroups groups = products.row_groups();
  const int64_t padded = round_up(outputs, groups.rows), depth = channels / factors;
  const auto word = [&](int64_t o, int64_t k) {
    if (o >= outputs || k >= depth) return 0.0f;
    const int64_t step = weight.stride(rank + 1);
    return read.word(begin + o * weight.stride(rank) + k * factors * step, step, factors);
  };
  for (int64_t group = 0; group < padded; group += groups.rows) {
    const int64_t end = group + groups.rows;
    for (int64_t first = 0; first < depth; first += groups.depth) {
      for (int64_t o = group; o < end; ++o) {
        for (int64_t k = first; k < first + groups.depth; ++k) *target++ = word(o, k);
      }
    }
  }
  return append_affine(scale, bias, layer, outputs, padded, target);
}

float* pack_vector(const Tensor& values, int64_t layer, float* target) {
  const int64_t count = values.size(values.dim() - 1);
  return append(Values(values, layer, 0.0f), count, count, target);
}

// Windows as they are; those of bfloat16 fill half of the room.
float* pack_taps(const Tensor& weight, float* target) {
  const bool wide = weight.scalar_type() == ScalarType::Float;
  const size_t bytes = wide ? 4 : 2;
  const char* source = static_cast<const char*>(weight.const_data_ptr());
  const int64_t count = product_of(weight.size(2), weight.size(3), weight.size(0));
  std::fill_n(target, count, 0.0f);
  char* next = reinterpret_cast<char*>(target);
  for (int64_t kh = 0; kh < weight.size(2); ++kh) {
    for (int64_t kw = 0; kw < weight.size(3); ++kw) {
      for (int64_t c = 0; c < weight.size(0); ++c, next += bytes) {
        const int64_t offset = c * weight.stride(0) + kh * weight.stride(2) + kw * weight.stride(3);
        std::memcpy(next, source + offset * static_cast<int64_t>(bytes), bytes);
      }
    }
  }
  return target + count;
}

OptionalTensor part(const OptionalTensor& stack, int64_t index) {
  if (!stack) return std::nullopt;
  return torch::stable::select(*stack, 0, index);
}

std::string shape_of(Shape shape) {
  std::ostringstream text;
  const char* separator = "(";
  for (const int64_t size : shape) text << separator << size, separator = ", ";
  text << (shape.size() == 1 ? ",)" : ")");
  return text.str();
}

}  // namespace

void check_rank(const char* op, const char* name, const Tensor& weight, int64_t dimensions) {
  bool ok = weight.dim() == dimensions;
  for (int64_t i = 0; ok && i < dimensions; ++i) ok = weight.size(i) > 0;
  check(ok, "mobilevit_fast.", op, ": expected ", name, " of ", dimensions, " dimensions, none of them 0, got ",
        shape_text(weight));
}

Packing::Packing(const char* op, const Tensor& first, const Products& products, int64_t words, PackedShape shape)
    : op_(op), first_(first), products_(products), words_(words), packed_(empty_floats(0)) {
  const ScalarType type = first.scalar_type();
  check(type == kTypes.a || type == kTypes.b, "mobilevit_fast.", op, ": expected weights of type ", kTypes.text,
        ", got ", dtype_text(type));
  packed_ = empty_matrix(shape.rows, shape.numbers, type);
  target_ = static_cast<float*>(packed_.mutable_data_ptr());
}

Tensor Packing::finish() {
  float* begin = static_cast<float*>(packed_.mutable_data_ptr());
  check(target_ - begin == words_, "mobilevit_fast.", op_, ": expected ", words_, " words of packed weights, got ",
        target_ - begin);
  const int64_t numbers = product_of(packed_.size(0), packed_.size(1));
  std::fill(target_, begin + (first_.scalar_type() == ScalarType::Float ? numbers : numbers / 2), 0.0f);
  return packed_;
}

void Packing::parameter(const std::string& name, const Tensor& tensor, Shape shape, bool float32) const {
  const auto expect = [&](bool ok, const auto&... parts) {
    check(ok, "mobilevit_fast.", op_, ": expected ", name, parts...);
  };
  bool same = tensor.dim() == static_cast<int64_t>(shape.size());
  int64_t i = 0;
  for (const int64_t size : shape) same = same && tensor.size(i++) == size;
  if (!same) expect(false, " of shape ", shape_of(shape), ", got ", shape_text(tensor));
  const ScalarType given = tensor.scalar_type(), type = first_.scalar_type();
  expect(given == type || (float32 && given == ScalarType::Float), " of type ", dtype_text(type),
         ", like the first weight, got ", dtype_text(given));
  expect(tensor.is_cpu(), " on the CPU, got one on ", device_text(tensor));
  expect(is_stored(tensor), " with memory for its shape ", shape_text(tensor),
         ", got one whose storage was resized to ", storage_bytes(tensor), " bytes");
}

void Packing::convolution(const char* name, const Tensor& weight, const OptionalTensor& scale,
                          const OptionalTensor& bias, Shape shape, Shape vectors) const {
  const std::string prefix = *name == '\0' ? "" : std::string(name) + " ";
  parameter(prefix + "weight", weight, shape, false);
  if (scale) parameter(prefix + "scale", *scale, vectors, true);
  if (bias) parameter(prefix + "bias", *bias, vectors, true);
}

void Packing::panels(const char* name, const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias,
                     Shape shape) {
  convolution(name, weight, scale, bias, shape, {*shape.begin()});
  target_ = pack_panels(weight, scale, bias, products_.factors, target_);
}

void Packing::stacked_panels(const char* name, const Tensor& weight, const OptionalTensor& scale,
                             const OptionalTensor& bias, Shape shape) {
  const int64_t count = shape.begin()[0];
  convolution(name, weight, scale, bias, shape, {count, shape.begin()[1]});
  for (int64_t i = 0; i < count; ++i) {
    target_ = pack_panels(*part(weight, i), part(scale, i), part(bias, i), products_.factors, target_);
  }
}

void Packing::split_panels(const char* name, const Tensor& weight, const OptionalTensor& scale,
                           const OptionalTensor& bias, Shape shape, int64_t first) {
  convolution(name, weight, scale, bias, shape, {*shape.begin()});
  Tensor all = weight;  // narrow() takes no constant
  target_ = pack_panels(torch::stable::narrow(all, 1, 0, first), scale, std::nullopt, products_.factors, target_);
  const Tensor rest = torch::stable::narrow(all, 1, first, shape.begin()[1] - first);
  target_ = pack_panels(rest, scale, bias, products_.factors, target_);
}

void Packing::winograd(const char* name, const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias,
                       Shape shape) {
  convolution(name, weight, scale, bias, shape, {*shape.begin()});
  target_ = pack_winograd(weight, scale, bias, target_);
}

void Packing::depthwise(const char* name, const Tensor& weight, const OptionalTensor& scale, const OptionalTensor& bias,
                        Shape shape) {
  convolution(name, weight, scale, bias, shape, {*shape.begin()});
  target_ = pack_depthwise(weight, scale, bias, target_);
}

void Packing::depthwise_as_it_is(const char* name, const Tensor& weight, const OptionalTensor& scale,
                                 const OptionalTensor& bias, Shape shape) {
  const int64_t channels = *shape.begin();
  convolution(name, weight, scale, bias, shape, {channels});
  target_ = append_affine(scale, bias, 0, channels, channels, target_);
  target_ = pack_taps(weight, target_);
}

void Packing::row_groups(const char* name, const Tensor& weight, const OptionalTensor& scale,
                         const OptionalTensor& bias, Shape shape, int64_t layer) {
  const int64_t* sizes = shape.begin();
  if (shape.size() == 3) {
    convolution(name, weight, scale, bias, shape, {sizes[0], sizes[1]});
  } else {
    convolution(name, weight, scale, bias, shape, {sizes[0]});
  }
  target_ = pack_row_groups(weight, scale, bias, layer, products_, target_);
}

void Packing::norm(const char* name, const Tensor& weight, const Tensor& bias, Shape shape, int64_t layer) {
  parameter(std::string(name) + " weight", weight, shape, true);
  parameter(std::string(name) + " bias", bias, shape, true);
  target_ = pack_vector(weight, layer, target_);
  target_ = pack_vector(bias, layer, target_);
}

}  // namespace mobilevit_fast::cpu
