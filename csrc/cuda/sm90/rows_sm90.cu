// The kernels of rows_sm90_kernel.h: which shapes have one, and their launch.
#include "launch_sm90.h"
#include "rows_sm90_kernel.h"

namespace mobilevit_fast::cuda {
namespace {

// Calls visit(KernelType<K>()) with every kernel.
template <class Visit>
void each_rows_kernel(const Visit& visit) {
  visit(KernelType<Rows<64, 256, 64, 64, 1, 6> >());
  visit(KernelType<Rows<48, 192, 48, 64, 1, 6> >());
  visit(KernelType<Rows<96, 384, 128, 32, 2, 3> >());
  visit(KernelType<Rows<128, 512, 160, 16, 2, 8, true> >());
}

template <class K>
bool fits(int channels, int expanded, int outputs) {
  return channels == K::kChannels && expanded == K::kExpanded && outputs == K::kOutputs;
}
template <class K>
bool fits(const RowsParams& p) {
  const bool counts = int64_t{1} * p.batch * p.height * p.width < int64_t{1} << 31;
  return fits<K>(p.channels, p.expanded, p.outputs) && p.width == K::kRowWidth && p.stride == K::kStep &&
         p.height % K::kStep == 0 && counts;
}

}  // namespace

bool has_rows_sm90(int channels, int expanded, int outputs) {
  bool has = false;
  each_rows_kernel([&](auto kernel) { has |= fits<typename decltype(kernel)::Type>(channels, expanded, outputs); });
  return has;
}

bool takes_rows_sm90(const RowsParams& p) {
  bool takes = false;
  each_rows_kernel([&](auto kernel) { takes |= fits<typename decltype(kernel)::Type>(p); });
  return takes;
}

cudaError_t rows_sm90(RowsParams p, cudaStream_t stream) {
  const int rows = p.batch * (p.height / p.stride), processors = current_chip().processors;
  p.blocks = rows < processors ? rows : processors;
  cudaError_t result = cudaErrorInvalidValue;
  each_rows_kernel([&](auto kernel) {
    using Kernel = typename decltype(kernel)::Type;
    if (!fits<Kernel>(p)) return;
    const ImageBox pixels{p.x, p.batch * p.height, p.width / 2,     2, p.channels, 1, p.width / 2,
                          1,   Kernel::kBox,       Kernel::kSwizzle};
    if (encode(p.rows, pixels)) result = launch_sm90<Kernel>(p, stream);
  });
  return result;
}

}  // namespace mobilevit_fast::cuda
