// Bilinear resizing on a GPU: parameters of the kernel, entry point.
#pragma once

#include "cuda/runtime.h"
#include "cuda/sizes.h"

namespace mobilevit_fast::cuda {

struct ResizeParams {
  const void* x;  // (batch, height, width, channels), channels a multiple of 8
  void* y;        // (batch, out_h, out_w, channels)
  int batch, height, width, channels, out_h, out_w;
  Activation activation;
};

template <class T>
cudaError_t resize(const ResizeParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
