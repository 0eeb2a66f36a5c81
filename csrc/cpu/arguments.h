// Checks of the arguments of CPU operators, and their input as kernels see it.
#pragma once

#include "common/arguments.h"
#include "cpu/gemm/products.h"
#include "memory.h"

namespace mobilevit_fast::cpu {

constexpr Types kTypes{ScalarType::Float, ScalarType::BFloat16, "torch.float32 or torch.bfloat16"};

inline Element element_of(ScalarType type) { return type == ScalarType::Float ? Element::float32 : Element::bfloat16; }

// Of a call with packed weights of such sizes.
template <class Sizes>
struct Arguments : ArgumentChecks {
  Arguments(const Tensor& x, const Tensor& packed, const Sizes& sizes)
      : ArgumentChecks(kTypes, Sizes::kOp, x, packed), products(sizes.products(type() == ScalarType::BFloat16)) {
    ArgumentChecks::sizes(numbers_of(sizes));
    const int64_t bytes = product_of(sizes.packed_words(products), 4);
    ArgumentChecks::packed(packed, bytes, row_bytes(sizes, products), "the kernel variant ", isa_name(products.isa));
    weights = static_cast<const float*>(packed.const_data_ptr());
  }

  Element element() const { return element_of(type()); }

  Products products;
  const float* weights;
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
