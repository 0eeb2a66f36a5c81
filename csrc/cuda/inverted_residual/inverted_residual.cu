// The kernels of inverted_residual_kernel.h for float16, with every tile.
#include "inverted_residual_launch.h"

namespace mobilevit_fast::cuda {

template size_t inverted_residual_bytes<Half>(const InvertedResidualParams&, bool, int);
template cudaError_t inverted_residual<Half>(const InvertedResidualParams&, bool, int, cudaStream_t);

}  // namespace mobilevit_fast::cuda
