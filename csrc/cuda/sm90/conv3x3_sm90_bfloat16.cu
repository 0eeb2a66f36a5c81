// The kernels of conv3x3_sm90_kernel.h over bfloat16, and their launch.
#include "conv3x3_sm90_launch.h"

namespace mobilevit_fast::cuda {

template cudaError_t conv3x3_sm90<BFloat16>(int, const Conv3x3Sm90Params&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
