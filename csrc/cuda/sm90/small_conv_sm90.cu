// Dense convolutions of few images: which there are, and their launches in float16.
#include "small_conv_sm90_kernel.h"

namespace mobilevit_fast::cuda {

bool has_small_conv(int inputs, int outputs) {
  SmallConvParams p{};
  p.channels = inputs, p.outputs = outputs;
  if (inputs == 2 * outputs) p.channels = p.channels2 = outputs;
  return few::with_conv_kernel<Half>(p, [](auto) {}, few::ConvShapes());
}

int64_t small_conv_blocks(const SmallConvParams& params) {
  int64_t blocks = 0;
  const auto count = [&](auto kernel) { blocks = decltype(kernel)::blocks(params); };
  few::with_conv_kernel<Half>(params, count, few::ConvShapes());
  return blocks;
}

template cudaError_t small_conv<Half>(const SmallConvParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
