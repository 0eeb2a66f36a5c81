// The kernel of mobilevit_transformer_warps_kernel.h for bfloat16.
#include "mobilevit_transformer_warps_launch.h"

namespace mobilevit_fast::cuda {

template cudaError_t mobilevit_transformer_warps<BFloat16>(const MobileViTTransformerParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
