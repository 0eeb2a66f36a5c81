// The first half of a classifier head on a GPU: entry point.
#pragma once

#include "conv2d_input.h"
#include "runtime.h"

namespace mobilevit_fast::cuda {

// The input's shape is that of a 1x1 convolution with `outputs` expanded channels; its tile has one image.
struct ClassifierHeadParams : Conv2dInput {
  void* mean;                  // (batch, outputs)
  const Float2 *scale, *bias;  // as in Conv2dBiasActParams
  Activation activation;
};

// Launches the kernel of params.tile (choose_classifier_head_tile); cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t classifier_head(const ClassifierHeadParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
