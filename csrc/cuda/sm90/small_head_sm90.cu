// Launches of the classifier heads of few images.
#include "launch_sm90.h"
#include "small_head_sm90_kernel.h"

namespace mobilevit_fast::cuda {

int small_head_rows(int channels, int expanded, int classes) {
  int rows = 0;
  const auto count = [&](auto shape) {
    using S = decltype(shape);
    rows = S::rows(classes) * S::kBlocks;
  };
  few::with_head_shape(channels, expanded, classes, count, few::HeadShapes());
  return rows;
}

template <class T>
cudaError_t small_head(const SmallHeadParams& params, cudaStream_t stream) {
  cudaError_t status = cudaErrorInvalidValue;
  const auto start = [&](auto shape) { status = launch_sm90<few::HeadKernel<T, decltype(shape)>>(params, stream); };
  few::with_head_shape(params.channels, params.expanded, params.classes, start, few::HeadShapes());
  return status;
}

template cudaError_t small_head<Half>(const SmallHeadParams&, cudaStream_t);
template cudaError_t small_head<BFloat16>(const SmallHeadParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
