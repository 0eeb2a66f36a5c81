// torch.ops.mobilevit_fast.resize_crop.cpu: checks, plan, launch.
#include "resize_crop.h"

#include "common/checks.h"
#include "plan.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const ResizeCropParams&, int64_t, int64_t);

#define MVF_ENTRY(isa) isa::resize_crop,
constexpr Kernel kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

constexpr int64_t kMaxEdge = (int64_t{1} << 24) - 1;  // what Pillow, which counts pixels in float32, resizes exactly
constexpr int64_t kMaxResized = INT32_MAX;

template <class... Parts>
void expect(const Tensor& image, bool ok, const Parts&... parts) {
  check(ok, "mobilevit_fast.resize_crop: expected ", parts..., " (image.shape=", shape_text(image), ")");
}

bool is_filter(int64_t resample) {
  return resample >= static_cast<int64_t>(Filter::lanczos) && resample <= static_cast<int64_t>(Filter::hamming);
}

void check_arguments(const Tensor& image, const std::vector<int64_t>& size, const std::vector<int64_t>& offset,
                     int64_t resample, const Tensor& out) {
  expect(image, image.dim() == 3 && (image.size(2) == 1 || image.size(2) == 3),
         "an image of shape (height, width, 1 or 3)");
  expect(image, image.scalar_type() == ScalarType::Byte && out.scalar_type() == ScalarType::Byte,
         "image and out of type torch.uint8, got ", dtype_text(image.scalar_type()), " and ",
         dtype_text(out.scalar_type()));
  const int64_t channels = image.size(2);
  const bool lies_close =
      (channels == 1 || image.stride(2) == 1) && (image.size(1) <= 1 || image.stride(1) == channels);
  expect(image, lies_close, "an image whose pixels follow one another within a row, got strides ", image.stride(1),
         " and ", image.stride(2));
  for (int i = 0; i < 2; ++i) {
    expect(image, image.size(i) >= 1 && image.size(i) <= kMaxEdge, "edges of 1 to ", kMaxEdge, " pixels");
  }
  expect(image, out.is_cpu(), "out on the CPU, got ", device_text(out));
  expect(image, is_stored(image) && is_stored(out), "image and out with memory for their shapes");
  expect(image, size.size() == 2 && size[0] >= 1 && size[1] >= 1 && size[0] <= kMaxResized && size[1] <= kMaxResized,
         "two edges of 1 to ", kMaxResized, " pixels as size");
  expect(image, offset.size() == 2, "two numbers as offset, got ", offset.size());
  for (const int64_t number : offset) {
    expect(image, number >= -kMaxResized && number <= kMaxResized, "an offset of fewer than 2^31 pixels, got ", number);
  }
  expect(image, is_filter(resample), "the number of a filter of PIL.Image.Resampling, 1 to 5, got ", resample);
  expect(image, out.dim() == 3 && out.size(0) == channels, "out of shape (", channels, ", height, width), got ",
         shape_text(out));
  expect(image, out.size(1) <= kMaxResized && out.size(2) <= kMaxResized, "out of edges of at most ", kMaxResized,
         " pixels, got ", shape_text(out));
}

void resize_crop(Tensor image, std::vector<int64_t> size, std::vector<int64_t> offset, int64_t resample,
                 bool rows_first, bool flip_channels, Tensor out) {
  check_arguments(image, size, offset, resample, out);
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
