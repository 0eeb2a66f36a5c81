// Starts a kernel on a stream.
#pragma once

#include <cuda_runtime.h>

#include "mobilevit_fast/device.h"

namespace mobilevit_fast::cuda {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, 1) start(const __grid_constant__ typename Kernel::Params params) {
  Kernel::run(params);
}

template <class Kernel>
cudaError_t launch(const typename Kernel::Params& params, cudaStream_t stream) {
  const size_t bytes = Kernel::shared_bytes(params);
  const cudaError_t allowed =
      cudaFuncSetAttribute(start<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (allowed != cudaSuccess) return allowed;
  start<Kernel><<<Kernel::blocks(params), Kernel::kThreads, bytes, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace mobilevit_fast::cuda
