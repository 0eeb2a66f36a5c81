// Descriptors of image batches for the tensor copies of compute capability 9.0, made on the host.
#pragma once

#include <cstdint>

#if !defined(MVF_EMULATED)
#include <cuda.h>
#include <cuda_runtime.h>
#endif

namespace mobilevit_fast::cuda {

// Images (images, height, width, channels) of 16-bit elements, channels innermost, and a box of them that a copy moves.
// What lies outside of the images is zero.
struct ImageBox {
  const void* data;
  int images, height, width, channels;
  int box_images, box_height, box_width, box_channels;
  int swizzle;  // kNoSwizzle to kSwizzle32 of device_sm90.h
};

#if defined(MVF_EMULATED)

struct TensorMap {
  ImageBox images;
};

inline bool encode(TensorMap& map, const ImageBox& images) { return map.images = images, true; }

#else

using TensorMap = CUtensorMap;

// False where the driver knows no tensor maps, or the box none of its own: 16 bytes must divide a pixel, and a box has
// at most 256 of each.
inline bool encode(TensorMap& map, const ImageBox& images) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                              const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t status =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    return status == cudaSuccess ? reinterpret_cast<Encode>(found) : nullptr;
  }();
  if (encode == nullptr) return false;
  const auto size = [](int value) { return static_cast<cuuint64_t>(value); };
  const cuuint64_t sizes[] = {size(images.channels), size(images.width), size(images.height), size(images.images)};
  const cuuint64_t pixel = sizes[0] * 2, row = pixel * sizes[1], strides[] = {pixel, row, row * sizes[2]};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(images.box_channels), static_cast<cuuint32_t>(images.box_width),
                            static_cast<cuuint32_t>(images.box_height), static_cast<cuuint32_t>(images.box_images)};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  constexpr CUtensorMapSwizzle kSwizzles[] = {CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                              CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_SWIZZLE_32B};
  return encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 4, const_cast<void*>(images.data), sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, kSwizzles[images.swizzle], CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

#endif

}  // namespace mobilevit_fast::cuda
