// torch.ops.mobilevit_fast.resize_crop.cuda: checks, plan, memory of the tables, launches.
#include "resize_crop.h"

#include "common/resize_crop_arguments.h"
#include "cuda/binding.h"
#include "resize_crop_plan.h"

namespace mobilevit_fast::cuda {
namespace {

void resize_crop_op(Tensor image, std::vector<int64_t> size, std::vector<int64_t> offset, int64_t resample,
                    bool rows_first, bool flip_channels, Tensor out) {
  check_resize_crop(image, size, offset, resample, out);
  if (out.size(1) == 0 || out.size(2) == 0) return;
  ResizeCropParams p{};
  p.count = 1, p.crop_h = static_cast<int>(out.size(1)), p.crop_w = static_cast<int>(out.size(2));
  p.y_channel_stride = out.stride(0), p.y_row_stride = out.stride(1), p.y_pixel_stride = out.stride(2);
  p.filter = static_cast<Filter>(resample), p.flips = flip_channels;
  ImageResize& one = p.images[0];
  one.image = static_cast<const uint8_t*>(image.const_data_ptr());
  one.y = static_cast<uint8_t*>(out.mutable_data_ptr());
  one.row_stride = image.size(0) > 1 ? image.stride(0) : 0;
  one.height = static_cast<int>(image.size(0)), one.width = static_cast<int>(image.size(1));
  one.out_h = static_cast<int>(size[0]), one.out_w = static_cast<int>(size[1]);
  one.top = static_cast<int>(offset[0]), one.left = static_cast<int>(offset[1]), one.rows_first = rows_first;

  const Target target(image);
  const int channels = static_cast<int>(image.size(2));
  plan_resizes(p, channels, current_chip().processors);
  check(p.count * resize_blocks(p) < int64_t{1} << 31 && p.count * table_blocks(p) < int64_t{1} << 31,
        "mobilevit_fast.resize_crop: expected a crop of fewer than 2^31 blocks of a GPU, got out of shape ",
        shape_text(out), " (image.shape=", shape_text(image), ")");
  Tensor tables = empty_floats(image, {p.table_words});
  p.tables = static_cast<int32_t*>(tables.mutable_data_ptr());
  const cudaError_t result = channels == 1 ? resize_crop<1>(p, target.stream()) : resize_crop<3>(p, target.stream());
  check(result == cudaSuccess, "mobilevit_fast.resize_crop: the kernel did not start: ", cudaGetErrorString(result));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) {
  m.impl("resize_crop.cuda", TORCH_BOX(&resize_crop_op));
}

}  // namespace mobilevit_fast::cuda
