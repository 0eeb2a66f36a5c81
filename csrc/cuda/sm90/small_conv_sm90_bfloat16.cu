// Launches of the dense convolutions of few images in bfloat16.
#include "small_conv_sm90_kernel.h"

namespace mobilevit_fast::cuda {

template cudaError_t small_conv<BFloat16>(const SmallConvParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
