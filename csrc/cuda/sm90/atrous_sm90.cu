// The kernels of atrous_sm90_kernel.h, and their launch.
#include "atrous_sm90_kernel.h"
#include "launch_sm90.h"

namespace mobilevit_fast::cuda {
namespace {

template <class Kernel>
cudaError_t launch_chunks(const AtrousSm90Params& params, cudaStream_t stream) {
  typename Kernel::Params p = Kernel::make_params(params, current_chip().processors);
  return Kernel::encode_map(p) ? launch_sm90<Kernel>(p, stream) : cudaErrorInvalidValue;
}

}  // namespace

template <class T>
cudaError_t atrous_sm90(const AtrousSm90Params& params, cudaStream_t stream) {
  const int chunk = atrous_sm90_chunk(params.channels);
  if (chunk == 32) return launch_chunks<AtrousSm90<T, 32>>(params, stream);
  return chunk == 16 ? launch_chunks<AtrousSm90<T, 16>>(params, stream) : cudaErrorInvalidValue;
}

template cudaError_t atrous_sm90<Half>(const AtrousSm90Params&, cudaStream_t);
template cudaError_t atrous_sm90<BFloat16>(const AtrousSm90Params&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
