// torch.ops.mobilevit_fast.resize_crop.cpu: checks, plan, launch.
#include "resize_crop.h"

#include "common/resize_crop_arguments.h"
#include "plan.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const ResizeCropParams&, int64_t, int64_t);

#define MVF_ENTRY(isa) isa::resize_crop,
constexpr Kernel kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

void resize_crop(Tensor image, std::vector<int64_t> size, std::vector<int64_t> offset, int64_t resample,
                 bool rows_first, bool flip_channels, Tensor out) {
  check_resize_crop(image, size, offset, resample, out);
  ResizeCropParams p{};
  p.image = static_cast<const uint8_t*>(image.const_data_ptr());
  p.channels = image.size(2), p.image_row_stride = image.size(0) > 1 ? image.stride(0) : 0;
  p.crop_h = out.size(1), p.crop_w = out.size(2);
  p.y = static_cast<uint8_t*>(out.mutable_data_ptr());
  p.y_channel_stride = out.stride(0), p.y_row_stride = out.stride(1), p.y_pixel_stride = out.stride(2);
  if (flip_channels) {
    p.y += (p.channels - 1) * p.y_channel_stride;
    p.y_channel_stride = -p.y_channel_stride;
  }
  const Resize resize{
      static_cast<Filter>(resample), image.size(0), image.size(1), size[0], size[1], offset[0], offset[1], rows_first};
  const ResizePlan plan(resize, p);
  kVariants[static_cast<int>(active_isa())](plan.params(), 0, p.crop_h);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) { m.impl("resize_crop.cpu", TORCH_BOX(&resize_crop)); }

}  // namespace mobilevit_fast::cpu
