// Launches of conv3x3_sm90_kernel.h, compiled for each type by itself.
#pragma once

#include "conv3x3_sm90_kernel.h"
#include "launch_sm90.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t conv3x3_sm90(int variant, const Conv3x3Sm90Params& params, cudaStream_t stream) {
  cudaError_t result = cudaErrorInvalidValue;
  with_conv3x3_sm90_kernel<T>(variant, [&](auto kernel) {
    using Kernel = decltype(kernel);
    typename Kernel::Params p = Kernel::make_params(params, current_chip().processors);
    if (Kernel::encode_maps(p)) result = launch_sm90<Kernel>(p, stream);
  });
  return result;
}

}  // namespace mobilevit_fast::cuda
