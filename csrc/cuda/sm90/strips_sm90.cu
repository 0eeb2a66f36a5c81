// Launches of the kernels of strips_sm90_kernel.h.
#include <utility>

#include "launch_sm90.h"
#include "strips_sm90_kernel.h"

namespace mobilevit_fast::cuda {
namespace {

template <class T, int kIndex>
using StripsOf = Strips<T, kStripsShapes[kIndex].size.channels, kStripsShapes[kIndex].size.expanded,
                        kStripsShapes[kIndex].size.outputs, kStripsShapes[kIndex].stride,
                        strips_warps(kIndex, std::is_same_v<T, BFloat16>), kStripsMatrixLoads>;

template <class T, int... kIndex>
cudaError_t launch_shape(int shape, const StripsParams& params, cudaStream_t stream,
                         std::integer_sequence<int, kIndex...>) {
  cudaError_t result = cudaErrorInvalidValue;
  (void)((shape == kIndex && (result = launch_sm90<StripsOf<T, kIndex> >(params, stream), true)) || ...);
  return result;
}

}  // namespace

template <class T>
cudaError_t strips(int shape, const StripsParams& params, cudaStream_t stream) {
  return launch_shape<T>(shape, params, stream, std::make_integer_sequence<int, kStripsShapeCount>());
}
template cudaError_t strips<Half>(int, const StripsParams&, cudaStream_t);
template cudaError_t strips<BFloat16>(int, const StripsParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
