// Which kernels of inverted_residual_kernel.h there are, and which of them a chip is given.
#pragma once

#include "inverted_residual_kernel.h"

namespace mobilevit_fast::cuda {

// Tiles of output pixels: 8x16, 8x8 and 4x8. Large ones expand fewer halo pixels twice, small ones are more, and more
// warps work on each. The largest are for the large images of MobileViT alone; the last are small tiles that take the
// least shared memory, for any sizes.
constexpr int kTileSizes = 4;

template <class T, bool kExpands, int kStride, int kOutputs, int kDepth, class Visit>
bool with_size(int size, const Visit& visit) {
  constexpr int kColumns = kOutputs / kMatrixColumns;
  if (size == 0) {
    constexpr bool kLarge = kDepth > 0 && kDepth <= 64 / kStride;
    if constexpr (kLarge) visit(KernelType<InvertedResidual<T, kExpands, kStride, 8, 16, 2, 1, kColumns, kDepth> >());
    return kLarge;
  }
  if (size == 1) {
    visit(KernelType<InvertedResidual<T, kExpands, kStride, 8, 8, 1, 2, kColumns, kDepth> >());
  } else if (size == 2) {
    visit(KernelType<InvertedResidual<T, kExpands, kStride, 4, 8, 1, 4, kColumns, kDepth> >());
  } else {
    visit(KernelType<InvertedResidual<T, kExpands, kStride, 4, 8, 1, 1, kColumns, 0> >());
  }
  return true;
}

// Calls visit(KernelType<K>()) with the kernel for these parameters and tiles; false, calling nothing, where there is
// none. The inverted residuals of the three sizes of MobileViT have kernels of their own, by input channels (rounded up
// to kMatrixDepth) and outputs, at most, without dilation.
template <class T, bool kExpands, int kStride, class Visit>
bool with_stride(const InvertedResidualParams& p, int size, const Visit& visit) {
  const int depth = kExpands && p.dilation == 1 ? round_up(p.channels, kMatrixDepth) : 0;
  const auto is = [&](int wanted_depth, int outputs) { return depth == wanted_depth && p.outputs <= outputs; };
  if constexpr (kExpands) {
    if (is(16, 32)) return with_size<T, true, kStride, 32, 16>(size, visit);
    if (is(48, 64)) return with_size<T, true, kStride, 64, 48>(size, visit);
  }
  if constexpr (kExpands && kStride == 1) {
    if (is(32, 32)) return with_size<T, true, 1, 32, 32>(size, visit);
    if (is(64, 64)) return with_size<T, true, 1, 64, 64>(size, visit);
  }
  if constexpr (kExpands && kStride == 2) {
    if (is(32, 64)) return with_size<T, true, 2, 64, 32>(size, visit);
    if (is(64, 96)) return with_size<T, true, 2, 96, 64>(size, visit);
    if (is(80, 96)) return with_size<T, true, 2, 96, 80>(size, visit);
    if (is(96, 128)) return with_size<T, true, 2, 128, 96>(size, visit);
    if (is(128, 160)) return with_size<T, true, 2, 160, 128>(size, visit);
  }
  if (p.outputs <= 32) return with_size<T, kExpands, kStride, 32, 0>(size, visit);
  if (p.outputs <= 64) return with_size<T, kExpands, kStride, 64, 0>(size, visit);
  return with_size<T, kExpands, kStride, 160, 0>(size, visit);
}

template <class T, class Visit>
bool with_kernel(const InvertedResidualParams& p, bool expands, int stride, int size, const Visit& visit) {
  if (expands) return stride == 1 ? with_stride<T, true, 1>(p, size, visit) : with_stride<T, true, 2>(p, size, visit);
  return stride == 1 ? with_stride<T, false, 1>(p, size, visit) : with_stride<T, false, 2>(p, size, visit);
}

// The largest tile of which there are two for each multiprocessor, or the smallest; of those whose shared memory the
// chip has.
template <class T>
int choose_size(const InvertedResidualParams& p, bool expands, int stride, const Chip& chip) {
  for (int size = 0; size + 1 < kTileSizes; ++size) {
    bool good = false;
    with_kernel<T>(p, expands, stride, size, [&](auto kernel) {
      using Kernel = typename decltype(kernel)::Type;
      const bool many = size + 2 == kTileSizes || Kernel::block_count(p) >= 2 * chip.processors;
      good = many && Kernel::shared_bytes(p) <= chip.shared_memory();
    });
    if (good) return size;
  }
  return kTileSizes - 1;
}

}  // namespace mobilevit_fast::cuda
