// Inverted residuals of few images: which there are, and their launches in float16.
#include "small_residual_sm90_kernel.h"

namespace mobilevit_fast::cuda {

int64_t small_residual_weight_bytes(int channels, int expanded, int outputs) {
  int64_t bytes = 0;
  const auto count = [&](auto shape) {
    using S = decltype(shape);
    bytes = int64_t{S::kSlices} * S::kBytes;
  };
  few::with_residual_shape(channels, expanded, outputs, count, few::ResidualShapes());
  return bytes;
}

int64_t small_residual_blocks(const SmallResidualParams& params) {
  int64_t blocks = 0;
  few::with_residual_kernel<Half>(params, [&](auto kernel) { blocks = decltype(kernel)::blocks(params); });
  return blocks;
}

template cudaError_t small_residual<Half>(const SmallResidualParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
