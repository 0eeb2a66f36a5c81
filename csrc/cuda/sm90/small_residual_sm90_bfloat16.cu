// Launches of the inverted residuals of few images in bfloat16.
#include "small_residual_sm90_kernel.h"

namespace mobilevit_fast::cuda {

template cudaError_t small_residual<BFloat16>(const SmallResidualParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
