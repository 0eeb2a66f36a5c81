// The primitives for compute capability 9.0 by name, for the emulator's bindings and for a program on a GPU.
#pragma once

#include <string>
#include <vector>

#include "sm90_faults.h"
#include "sm90_primitives.h"

namespace mobilevit_fast::cuda {

// Sizes of N: all on a GPU, where each is an instruction of its own.
// clang-format off
#if defined(MVF_EMULATED)
#define MVF_PRODUCT_SIZES(CASE) CASE(8) CASE(96) CASE(144) CASE(256)
#else
#define MVF_PRODUCT_SIZES(CASE)                                                                                \
  CASE(8) CASE(16) CASE(24) CASE(32) CASE(40) CASE(48) CASE(64) CASE(72) CASE(80) CASE(96) CASE(120) CASE(128) \
  CASE(144) CASE(160) CASE(192) CASE(240) CASE(256)
#endif
// clang-format on

template <class T, bool kRegistersHoldLeft>
cudaError_t launch_product(int n, const Arrays& arrays) {
#define MVF_CASE(N) \
  if (n == N) return launch_sm90<ProductOf<T, N, kRegistersHoldLeft>>(arrays, nullptr);
  MVF_PRODUCT_SIZES(MVF_CASE)
#undef MVF_CASE
  return cudaErrorInvalidValue;
}

inline cudaError_t launch_box(const std::vector<int>& n, const Arrays& arrays) {
  BoxParams params{arrays, {}, static_cast<int>(arrays.to_bytes), n[12], n[11], n[10], n[9]};
  const ImageBox images{arrays.from, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8]};
  if (!encode(params.map, images)) return cudaErrorInvalidValue;
  return launch_sm90<CopyBox>(params, nullptr);
}

// Numbers: probe: left, transposed, start, leading, stride, swizzle, base offset; product: n, bfloat16, left in
// registers; box: four sizes of the images, four of the box, its swizzle, its image, row, column and channel; pipeline:
// bytes of the pieces, behind which the weight lies; matrices: none.
inline cudaError_t launch_case(const std::string& name, const std::vector<int>& n, const Arrays& arrays) {
  if (name == "probe" && n.size() == 7) {
    const ProbeParams params{arrays, n[2], n[3], n[4], n[5], n[6]};
    if (n[0] != 0) return (n[1] != 0 ? launch_sm90<Probe<true, 1>> : launch_sm90<Probe<true, 0>>)(params, nullptr);
    return (n[1] != 0 ? launch_sm90<Probe<false, 1>> : launch_sm90<Probe<false, 0>>)(params, nullptr);
  }
  if (name == "product" && n.size() == 3) {
    if (n[1] != 0) return (n[2] != 0 ? launch_product<BFloat16, true> : launch_product<BFloat16, false>)(n[0], arrays);
    return (n[2] != 0 ? launch_product<Half, true> : launch_product<Half, false>)(n[0], arrays);
  }
  if (name == "box" && n.size() == 13) return launch_box(n, arrays);
  if (name == "matrices") return launch_sm90<MoveMatrices>(arrays, nullptr);
  if (name == "pipeline" && n.size() == 1) {
    const void* weight = static_cast<const char*>(arrays.from) + n[0];
    return launch_sm90<Pipeline<false>>(
        {arrays.from, weight, arrays.to, n[0], arrays.from_bytes - n[0], arrays.to_bytes, Sm90Fault::none}, nullptr);
  }
  return cudaErrorInvalidValue;
}

}  // namespace mobilevit_fast::cuda
