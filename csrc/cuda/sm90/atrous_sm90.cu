// The kernels of atrous_sm90_kernel.h over float16, and their launch.
#include "atrous_sm90_kernel.h"

namespace mobilevit_fast::cuda {

template cudaError_t atrous_sm90<Half>(const AtrousSm90Params&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
