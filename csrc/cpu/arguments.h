// Checks of the arguments of CPU operators, and their input as kernels see it.
#pragma once

#include "common/arguments.h"
#include "packing.h"

namespace mobilevit_fast::cpu {

constexpr Types kTypes{ScalarType::Float, ScalarType::BFloat16, "torch.float32 or torch.bfloat16"};

inline Element element_of(ScalarType type) { return type == ScalarType::Float ? Element::float32 : Element::bfloat16; }

struct Parameters : ParameterChecks {
  Parameters(const char* op, const char* name, const Tensor& weight) : ParameterChecks(kTypes, op, name, weight) {}
};

struct Arguments : ArgumentChecks {
  Arguments(const char* op, const Tensor& x) : ArgumentChecks(kTypes, op, x) {}

  // Packed weights as given, or made of `weights` where none were.
  template <class Weights>
  Tensor packed(const std::optional<Tensor>& given, const Products& products, const Weights& weights) const {
    if (!given) return weights.pack(products);
    const int64_t floats = weights.packed_floats(products);
    expect(given->dim() == 1 && given->size(0) == floats && given->scalar_type() == ScalarType::Float &&
               given->is_cpu() && given->stride(0) == 1,
           "packed weights of shape (", floats, ",) and type torch.float32 on the CPU, as made for the kernel variant ",
           isa_name(products.isa), ", got ", shape_text(*given));
    stored("packed weights", *given);
    return *given;
  }
};

// An input as kernels see it. Converted to channels_last unless its channels, or, with `any_strides`, all its
// dimensions, may be strided.
inline ImageBatch image_batch(Tensor& x, bool any_strides = false) {
  if (!any_strides && x.stride(1) != 1 && x.size(1) > 1) {
    x = torch::stable::contiguous(x, torch::headeronly::MemoryFormat::ChannelsLast);
  }
  // Where there is one of something, any stride may stand, and kernels compute with it.
  const auto stride = [&](int dimension) { return x.size(dimension) > 1 ? x.stride(dimension) : 0; };
  const int64_t channel_stride = x.size(1) > 1 ? x.stride(1) : 1;
  return {x.const_data_ptr(), x.size(0),      x.size(1), x.size(2), x.size(3),
          stride(0),          channel_stride, stride(2), stride(3)};
}

}  // namespace mobilevit_fast::cpu
