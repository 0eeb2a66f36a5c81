// Which tiles of inverted_residual_kernel.h there are.
#pragma once

#include "inverted_residual_kernel.h"

namespace mobilevit_fast::cuda {

// Tiles of output pixels: 8x16, 8x8 and 4x8. Large ones expand fewer halo pixels twice, small ones are more.
constexpr int kTileSizes = 3;

// Calls visit(K()) with the kernel of this tile for these parameters; false, calling nothing, where there is none.
template <class T, bool kExpands, int kStride, int kTileH, int kTileW, int kRun, int kColumns, int... kMore,
          class Visit>
bool with_columns(const InvertedResidualParams& p, const Visit& visit) {
  using Kernel = InvertedResidual<T, kExpands, kStride, kTileH, kTileW, kRun, kColumns>;
  if (p.outputs <= Kernel::kOutputs) {
    visit(Kernel());
    return true;
  }
  if constexpr (sizeof...(kMore) > 0)
    return with_columns<T, kExpands, kStride, kTileH, kTileW, kRun, kMore...>(p, visit);
  return false;
}

template <class T, bool kExpands, int kStride, class Visit>
bool with_tile(const InvertedResidualParams& p, int size, const Visit& visit) {
  switch (size) {
    case 0:
      return with_columns<T, kExpands, kStride, 8, 16, 8, 4, 8, 12, 20>(p, visit);
    case 1:
      return with_columns<T, kExpands, kStride, 8, 8, 4, 2, 4, 6, 10>(p, visit);
    default:
      return with_columns<T, kExpands, kStride, 4, 8, 4, 2, 4, 6, 10>(p, visit);
  }
}

template <class T, bool kExpands, class Visit>
bool with_kernel(const InvertedResidualParams& p, int stride, int size, const Visit& visit) {
  return stride == 1 ? with_tile<T, kExpands, 1>(p, size, visit) : with_tile<T, kExpands, 2>(p, size, visit);
}

}  // namespace mobilevit_fast::cuda
