// The kernels of strips_kernel.h by the number of their shape. They are compiled for compute capability 9.0 alone, and
// for every chip.
#pragma once

#include <utility>

#include "cuda/launch.h"
#include "strips_kernel.h"

namespace mobilevit_fast::cuda {

template <class Kernel>
struct StripsKernel {
  using Type = Kernel;
};

template <class T, bool kAnyWarps, class Call, int... kIndex>
cudaError_t with_strips(int shape, const Call& call, std::integer_sequence<int, kIndex...>) {
  cudaError_t result = cudaErrorInvalidValue;
  (void)((shape == kIndex &&
          (result =
               call(StripsKernel<
                    Strips<T, kStripsShapes[kIndex].size.channels, kStripsShapes[kIndex].size.expanded,
                           kStripsShapes[kIndex].size.outputs, kStripsShapes[kIndex].stride,
                           most_strips_warps(kIndex, std::is_same_v<T, BFloat16>), kStripsMatrixLoads, kAnyWarps> >()),
           true)) ||
         ...);
  return result;
}

// What `call` makes of the kernel; an error where there is no such shape.
template <class T, bool kAnyWarps, class Call>
cudaError_t with_strips(int shape, const Call& call) {
  return with_strips<T, kAnyWarps>(shape, call, std::make_integer_sequence<int, kStripsShapeCount>());
}

}  // namespace mobilevit_fast::cuda
