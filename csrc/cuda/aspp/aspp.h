// The branch of an image's mean in atrous spatial pyramid pooling on a GPU: entry points. The other branches are dense
// convolutions.
#pragma once

#include <algorithm>

#include "cuda/runtime.h"
#include "cuda/sizes.h"

namespace mobilevit_fast::cuda {

// The image is dense in channels_last order; channels and features are multiples of 8. Weights are rows as they come:
// (features, channels) and (outputs, features); scales and biases float32.
struct AsppPoolParams {
  const void* x;      // (batch, pixels, channels)
  float* sums;        // (batch, slices, channels): of an image's pixels, of which each slice has a share
  float* image_bias;  // (batch, outputs up to a multiple of 16): what the projection makes of the mean's branch
  const Bytes16 *pool, *project;
  const float *pool_scale, *pool_bias, *project_scale, *project_bias;
  int batch, pixels, channels, features, outputs, slices;
  Activation activation;
};

constexpr int kAsppVector = 8192;  // channels, and features, at most: both lie in the shared memory of every GPU

// Blocks that share an image: enough of them for all processors, if they then have pixels enough.
inline int choose_aspp_slices(int batch, int pixels, int processors) {
  constexpr int kMinPixels = 64;
  return std::max(1, std::min(processors / batch, pixels / kMinPixels));
}

// Launch one kernel each: of x the sums, of the sums the biases.
template <class T>
cudaError_t aspp_sums(const AsppPoolParams& params, cudaStream_t stream);
template <class T>
cudaError_t aspp_image_bias(const AsppPoolParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
