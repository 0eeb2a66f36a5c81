// torch.ops.mobilevit_fast.resize_crop.cuda and resize_crop_batch.cuda: checks, plan, memory of the tables, launches.
#include "resize_crop.h"

#include "common/resize_crop_arguments.h"
#include "cuda/binding.h"
#include "resize_crop_plan.h"

namespace mobilevit_fast::cuda {
namespace {

// Size, offset: two numbers each.
ImageResize resize_of(const Tensor& image, const int64_t* size, const int64_t* offset, bool rows_first, uint8_t* y) {
  ImageResize resize{};
  resize.image = static_cast<const uint8_t*>(image.const_data_ptr()), resize.y = y;
  resize.row_stride = image.size(0) > 1 ? image.stride(0) : 0;
  resize.height = static_cast<int>(image.size(0)), resize.width = static_cast<int>(image.size(1));
  resize.out_h = static_cast<int>(size[0]), resize.out_w = static_cast<int>(size[1]);
  resize.top = static_cast<int>(offset[0]), resize.left = static_cast<int>(offset[1]);
  resize.rows_first = rows_first;
  return resize;
}

// What the images of a call share; the last three dimensions of `out` are a result's.
ResizeCropParams shared_params(const Tensor& out, int64_t resample, bool flip_channels) {
  const int64_t first = out.dim() - 3;
  ResizeCropParams p{};
  p.crop_h = static_cast<int>(out.size(first + 1)), p.crop_w = static_cast<int>(out.size(first + 2));
  p.y_channel_stride = out.stride(first), p.y_row_stride = out.stride(first + 1);
  p.y_pixel_stride = out.stride(first + 2);
  p.filter = static_cast<Filter>(resample), p.flips = flip_channels;
  return p;
}

void start(const ResizeCropChecks& checks, ResizeCropParams& p, const Tensor& out) {
  const Target target(out);
  const int channels = static_cast<int>(out.size(out.dim() - 3));
  plan_resizes(p, channels, current_chip().processors);
  checks.expect(p.count * resize_blocks(p) < int64_t{1} << 31 && p.count * table_blocks(p) < int64_t{1} << 31,
                "a crop of fewer than 2^31 blocks of a GPU, got out of shape ", shape_text(out));
  Tensor tables = empty_floats(out, {p.table_words});
  p.tables = static_cast<int32_t*>(tables.mutable_data_ptr());
  const auto run = channels == 1 ? resize_crop<1> : resize_crop<3>;
  const cudaError_t result = run(p, target.stream());
  check(result == cudaSuccess, "mobilevit_fast.resize_crop: the kernel did not start: ", cudaGetErrorString(result));
}

void resize_crop_op(Tensor image, std::vector<int64_t> size, std::vector<int64_t> offset, int64_t resample,
                    bool rows_first, bool flip_channels, Tensor out) {
  check_resize_crop(image, size, offset, resample, out);
  ResizeCropParams p = shared_params(out, resample, flip_channels);
  if (p.crop_h == 0 || p.crop_w == 0) return;
  uint8_t* y = static_cast<uint8_t*>(out.mutable_data_ptr());
  p.count = 1, p.images[0] = resize_of(image, size.data(), offset.data(), rows_first, y);
  start({"resize_crop", image}, p, out);
}

// Sizes and offsets of all images one after the other.
void resize_crop_batch_op(std::vector<Tensor> images, std::vector<int64_t> sizes, std::vector<int64_t> offsets,
                          int64_t resample, std::vector<bool> rows_first, bool flip_channels, Tensor out) {
  const size_t count = images.size();
  check(
      sizes.size() == 2 * count && offsets.size() == 2 * count && rows_first.size() == count && out.dim() == 4 &&
          out.size(0) == static_cast<int64_t>(count),
      "mobilevit_fast.resize_crop_batch: expected two sizes and offsets, an order of passes and a result for each of ",
      count, " images, got ", sizes.size(), ", ", offsets.size(), ", ", rows_first.size(), " and out of shape ",
      shape_text(out));
  for (size_t i = 0; i < count; ++i) {
    const ResizeCropChecks checks("resize_crop_batch", images[i]);
    checks.sizes(&sizes[2 * i], &offsets[2 * i]);
    checks.filter(resample);
    checks.out(out, 4);
  }
  ResizeCropParams p = shared_params(out, resample, flip_channels);
  if (count == 0 || p.crop_h == 0 || p.crop_w == 0) return;
  uint8_t* y = static_cast<uint8_t*>(out.mutable_data_ptr());
  for (size_t first = 0; first < count; first += kMaxResizes) {
    p.count = static_cast<int>(std::min<size_t>(kMaxResizes, count - first));
    for (int k = 0; k < p.count; ++k) {
      const size_t i = first + k;
      p.images[k] = resize_of(images[i], &sizes[2 * i], &offsets[2 * i], rows_first[i], y + i * out.stride(0));
    }
    start({"resize_crop_batch", images[first]}, p, out);
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) {
  m.impl("resize_crop.cuda", TORCH_BOX(&resize_crop_op));
  m.impl("resize_crop_batch.cuda", TORCH_BOX(&resize_crop_batch_op));
}

}  // namespace mobilevit_fast::cuda
