// Launches of the kernels of strips_sm90_kernel.h.
#include <utility>

#include "launch_sm90.h"
#include "strips_sm90_kernel.h"

namespace mobilevit_fast::cuda {
namespace {

template <int kIndex>
using StripsOf =
    Strips<kStripsShapes[kIndex].size.channels, kStripsShapes[kIndex].size.expanded, kStripsShapes[kIndex].size.outputs,
           kStripsShapes[kIndex].stride, kStripsShapes[kIndex].warps, kStripsMatrixLoads>;

template <int... kIndex>
cudaError_t launch_shape(int shape, const StripsParams& params, cudaStream_t stream,
                         std::integer_sequence<int, kIndex...>) {
  cudaError_t result = cudaErrorInvalidValue;
  (void)((shape == kIndex && (result = launch_sm90<StripsOf<kIndex> >(params, stream), true)) || ...);
  return result;
}

}  // namespace

cudaError_t strips(int shape, const StripsParams& params, cudaStream_t stream) {
  return launch_shape(shape, params, stream, std::make_integer_sequence<int, kStripsShapeCount>());
}

}  // namespace mobilevit_fast::cuda
