// The kernel of mobilevit_transformer_warps_kernel.h for float16, and its launch.
#include "mobilevit_transformer_warps_launch.h"

namespace mobilevit_fast::cuda {

template cudaError_t mobilevit_transformer_warps<Half>(const MobileViTTransformerParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
