// The transformer stack on compute capability 9.0 for sequences that leave places empty in bfloat16: its launches.
#include "transformer_stack_sm90.h"
#include "transformer_stack_sm90_kernel.h"

namespace mobilevit_fast::cuda {

template <>
cudaError_t transformer_stack_masked_sm90<BFloat16>(const MobileViTTransformerParams& params, cudaStream_t stream) {
  return launch_stack_sm90<BFloat16, true>(params, stream);
}

}  // namespace mobilevit_fast::cuda
