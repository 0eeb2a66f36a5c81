// The first half of a classifier head on a GPU: entry point.
#pragma once

#include <cuda_runtime.h>

#include "classifier_head_kernel.h"

namespace mobilevit_fast::cuda {

// Launches the kernel of params.tile (choose_classifier_head_tile); cudaErrorInvalidValue where there is none.
template <class T>
cudaError_t classifier_head(const ClassifierHeadParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
