#include "packing.h"

#include <cstring>

#include "cpu/conv2d_bias_act/conv2d_bias_act.h"
#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {
namespace {

// Numbers of a tensor of float32 or bfloat16, wherever its strides put them, and words of `factors` that are `step`
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

}  // namespace

Products::Products(std::initializer_list<std::reference_wrapper<const Tensor>> weights) {
  bool bfloat16 = true, even = true;
  for (const Tensor& weight : weights) {
    bfloat16 = bfloat16 && weight.scalar_type() == ScalarType::BFloat16;
    even = even && weight.size(weight.dim() == 3 ? 2 : 1) % 2 == 0;
  }
  isa = product_isa(active_isa(), bfloat16, even);
  factors = word_factors(isa);
}

Products Products::of_tiles(const Tensor& weight) {
  Products products({weight});
  if (multiplies_tiles(products.isa)) return products;
  products.isa = product_isa(active_isa(), false, false), products.factors = 1;
  return products;
}

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

}  // namespace mobilevit_fast::cpu
