// Which kernels of depthwise_conv2d_kernel.h there are, and which of them a chip is given.
#pragma once

#include "depthwise_conv2d_kernel.h"

namespace mobilevit_fast::cuda {

// Calls visit(K()) with the kernel for this window, of this tile; false, calling nothing, where there is none.
template <class T, class Visit>
bool with_depthwise_kernel(int kernel, int stride, int tile, const Visit& visit) {
  const auto with_tile = [&](auto one, auto other) {
    tile == kLargeTile ? visit(one) : visit(other);
    return true;
  };
  const auto with_stride = [&](auto size) {
    constexpr int kKernel = decltype(size)::kSize;
    if (stride == 1)
      return with_tile(DepthwiseConv2d<T, kKernel, 1, kLargeTile>(), DepthwiseConv2d<T, kKernel, 1, kSmallTile>());
    if (stride == 2)
      return with_tile(DepthwiseConv2d<T, kKernel, 2, kLargeTile>(), DepthwiseConv2d<T, kKernel, 2, kSmallTile>());
    return false;
  };
  if (kernel == 3) return with_stride(Size<3>());
  if (kernel == 5) return with_stride(Size<5>());
  if (kernel == 7) return with_stride(Size<7>());
  return false;
}

// The larger tile where there are two for each multiprocessor and the chip has its shared memory.
template <class T>
int choose_tile(const DepthwiseConv2dParams& p, int kernel, int stride, const Chip& chip) {
  bool good = false;
  with_depthwise_kernel<T>(kernel, stride, kLargeTile, [&](auto one) {
    using Kernel = decltype(one);
    good = Kernel::block_count(p) >= 2 * chip.processors && Kernel::shared_bytes(p) <= chip.shared_memory();
  });
  return good ? kLargeTile : kSmallTile;
}

}  // namespace mobilevit_fast::cuda
