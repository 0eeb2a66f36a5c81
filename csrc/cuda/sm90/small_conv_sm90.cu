// Launches of the dense convolutions of few images.
#include "launch_sm90.h"
#include "small_conv_sm90_kernel.h"

namespace mobilevit_fast::cuda {

bool has_small_conv(int inputs, int outputs) {
  SmallConvParams p{};
  p.channels = inputs, p.outputs = outputs;
  if (inputs == 2 * outputs) p.channels = p.channels2 = outputs;
  return few::with_conv_kernel(p, [](auto) {}, few::ConvShapes());
}

int64_t small_conv_blocks(const SmallConvParams& params) {
  int64_t blocks = 0;
  few::with_conv_kernel(params, [&](auto kernel) { blocks = decltype(kernel)::blocks(params); }, few::ConvShapes());
  return blocks;
}

cudaError_t small_conv(const SmallConvParams& params, cudaStream_t stream) {
  cudaError_t status = cudaErrorInvalidValue;
  const auto start = [&](auto kernel) { status = launch_sm90<decltype(kernel)>(params, stream); };
  few::with_conv_kernel(params, start, few::ConvShapes());
  return status;
}

}  // namespace mobilevit_fast::cuda
