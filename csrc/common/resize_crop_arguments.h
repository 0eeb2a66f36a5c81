// Checks of the arguments of resize_crop, in the words of its error messages.
#pragma once

#include <vector>

#include "checks.h"
#include "resampling.h"

namespace mobilevit_fast {

inline void check_resize_crop(const Tensor& image, const std::vector<int64_t>& size, const std::vector<int64_t>& offset,
                              int64_t resample, const Tensor& out) {
  constexpr int64_t kMaxEdge = (int64_t{1} << 24) - 1;  // what Pillow, which counts in float32, resizes exactly
  constexpr int64_t kMaxResized = INT32_MAX;
  constexpr int64_t kMaxCrop = INT32_MAX - (1 << 16);  // counted in 32 bits, rounded up to whole blocks of a GPU
  const auto expect = [&](bool ok, const auto&... parts) {
    check(ok, "mobilevit_fast.resize_crop: expected ", parts..., " (image.shape=", shape_text(image), ")");
  };

  expect(image.dim() == 3 && (image.size(2) == 1 || image.size(2) == 3), "an image of shape (height, width, 1 or 3)");
  expect(image.scalar_type() == ScalarType::Byte && out.scalar_type() == ScalarType::Byte,
         "image and out of type torch.uint8, got ", dtype_text(image.scalar_type()), " and ",
         dtype_text(out.scalar_type()));
  const int64_t channels = image.size(2);
  const bool lies_close =
      (channels == 1 || image.stride(2) == 1) && (image.size(1) <= 1 || image.stride(1) == channels);
  expect(lies_close, "an image whose pixels follow one another within a row, got strides ", image.stride(1), " and ",
         image.stride(2));
  for (int i = 0; i < 2; ++i) {
    expect(image.size(i) >= 1 && image.size(i) <= kMaxEdge, "edges of 1 to ", kMaxEdge, " pixels");
  }
  expect(same_device(image, out), "out on ", device_text(image), ", like the image, got one on ", device_text(out));
  expect(is_stored(image) && is_stored(out), "image and out with memory for their shapes");
  expect(size.size() == 2 && size[0] >= 1 && size[1] >= 1 && size[0] <= kMaxResized && size[1] <= kMaxResized,
         "two edges of 1 to ", kMaxResized, " pixels as size");
  expect(offset.size() == 2, "two numbers as offset, got ", offset.size());
  for (const int64_t number : offset) {
    expect(number >= -kMaxResized && number <= kMaxResized, "an offset of fewer than 2^31 pixels, got ", number);
  }
  expect(resample >= static_cast<int64_t>(Filter::lanczos) && resample <= static_cast<int64_t>(Filter::hamming),
         "the number of a filter of PIL.Image.Resampling, 1 to 5, got ", resample);
  expect(out.dim() == 3 && out.size(0) == channels, "out of shape (", channels, ", height, width), got ",
         shape_text(out));
  expect(out.size(1) <= kMaxCrop && out.size(2) <= kMaxCrop, "out of edges of at most ", kMaxCrop, " pixels, got ",
         shape_text(out));
}

}  // namespace mobilevit_fast
