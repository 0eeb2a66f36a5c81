// The kernel of resize_kernel.h, and its launch.
#include "cuda/launch.h"
#include "resize.h"
#include "resize_kernel.h"

namespace mobilevit_fast::cuda {

template <class T>
cudaError_t resize(const ResizeParams& params, cudaStream_t stream) {
  return launch<Resize<T>>(params, stream);
}

template cudaError_t resize<Half>(const ResizeParams&, cudaStream_t);
template cudaError_t resize<BFloat16>(const ResizeParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
