// The kernels of resize_tables_kernel.h and resize_crop_kernel.h, and their launches.
#include "cuda/launch.h"
#include "resize_crop.h"
#include "resize_crop_kernel.h"

namespace mobilevit_fast::cuda {

template <int kChannels>
cudaError_t resize_crop(const ResizeCropParams& params, cudaStream_t stream) {
  const cudaError_t made = launch<MakeResizeTables>(params, stream);
  return made == cudaSuccess ? launch<ResizeCrop<kChannels>>(params, stream) : made;
}

template cudaError_t resize_crop<1>(const ResizeCropParams&, cudaStream_t);
template cudaError_t resize_crop<3>(const ResizeCropParams&, cudaStream_t);

}  // namespace mobilevit_fast::cuda
