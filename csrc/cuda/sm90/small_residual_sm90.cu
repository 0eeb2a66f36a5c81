// Launches of the inverted residuals of few images.
#include "launch_sm90.h"
#include "small_residual_sm90_kernel.h"

namespace mobilevit_fast::cuda {
namespace {

// Calls visit(K()) with the kernel for these parameters, if there is one.
template <class Visit>
void with_kernel(const SmallResidualParams& p, const Visit& visit) {
  const auto checked = [&](auto shape) {
    using S = decltype(shape);
    if (p.stride == S::kStride) visit(few::ResidualKernel<S>());
  };
  few::with_residual_shape(p.channels, p.expanded, p.outputs, checked, few::ResidualShapes());
}

}  // namespace

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
  with_kernel(params, [&](auto kernel) { blocks = decltype(kernel)::blocks(params); });
  return blocks;
}

int small_residual_images(const SmallResidualParams& params) {
  int images = 0;
  with_kernel(params, [&](auto kernel) { images = decltype(kernel)::kMaxImages; });
  return images;
}

cudaError_t small_residual(const SmallResidualParams& params, cudaStream_t stream) {
  cudaError_t status = cudaErrorInvalidValue;
  with_kernel(params, [&](auto kernel) { status = launch_sm90<decltype(kernel)>(params, stream); });
  return status;
}

}  // namespace mobilevit_fast::cuda
