// torch.ops.mobilevit_fast.pixels_to_float.cpu: checks, launch.
#include "pixels_to_float.h"

#include <algorithm>

#include "common/checks.h"
#include "cpu/parallel.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const PixelsToFloatParams&, int64_t, int64_t);

#define MVF_ENTRY(isa) isa::pixels_to_float,
constexpr Kernel kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

constexpr int64_t kMinElements = 1 << 15;  // of a thread: about 10 microseconds of work

template <class... Parts>
void expect(const Tensor& x, bool ok, const Parts&... parts) {
  check(ok, "mobilevit_fast.pixels_to_float: expected ", parts..., " (x.shape=", shape_text(x), ")");
}

void check_arguments(const Tensor& x, const Tensor& table, const Tensor& out) {
  expect(x, x.dim() == 4, "images of shape (batch, channels, height, width), got ", x.dim(), " dimensions");
  expect(x, x.scalar_type() == ScalarType::Byte, "images of type torch.uint8, got ", dtype_text(x.scalar_type()));
  expect(x, table.scalar_type() == ScalarType::Float && out.scalar_type() == ScalarType::Float,
         "table and out of type torch.float32, got ", dtype_text(table.scalar_type()), " and ",
         dtype_text(out.scalar_type()));
  expect(x, table.dim() == 2 && table.size(0) == x.size(1) && table.size(1) == kBytes && table.is_contiguous(),
         "a dense table of shape (", x.size(1), ", ", kBytes, "), got ", shape_text(table));
  bool same = out.dim() == 4;
  for (int i = 0; same && i < 4; ++i) same = out.size(i) == x.size(i);
  expect(x, same, "out of the images' shape, got ", shape_text(out));
  expect(x, table.is_cpu() && out.is_cpu(), "table and out on the CPU");
  expect(x, is_stored(x) && is_stored(table) && is_stored(out), "tensors with memory for their shapes");
}

void pixels_to_float(Tensor x, Tensor table, bool flip_channels, Tensor out) {
  check_arguments(x, table, out);
  if (x.size(0) == 0 || x.size(1) == 0 || x.size(2) == 0 || x.size(3) == 0) return;
  PixelsToFloatParams p{};
  p.x = static_cast<const uint8_t*>(x.const_data_ptr());
  p.table = static_cast<const float*>(table.const_data_ptr());
  p.y = static_cast<float*>(out.mutable_data_ptr());
  p.channels = x.size(1), p.height = x.size(2), p.width = x.size(3), p.flips = flip_channels;
  p.x_image_stride = x.stride(0), p.x_channel_stride = x.stride(1);
  p.x_row_stride = x.stride(2), p.x_pixel_stride = x.stride(3);
  p.y_image_stride = out.stride(0), p.y_channel_stride = out.stride(1);
  p.y_row_stride = out.stride(2), p.y_pixel_stride = out.stride(3);
  const Kernel kernel = kVariants[static_cast<int>(active_isa())];
  const int64_t grain = std::max<int64_t>(1, kMinElements / product_of(p.channels, p.width));
  parallel_for(product_of(x.size(0), p.height), [&](int64_t begin, int64_t end) { kernel(p, begin, end); }, grain);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) { m.impl("pixels_to_float.cpu", TORCH_BOX(&pixels_to_float)); }

}  // namespace mobilevit_fast::cpu
