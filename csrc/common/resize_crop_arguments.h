// Checks of the arguments of resize_crop and resize_crop_batch, in the words of their error messages.
#pragma once

#include <vector>

#include "checks.h"
#include "resampling.h"

namespace mobilevit_fast {

// Checks of an image of a call, and of what is made of it.
class ResizeCropChecks {
 public:
  ResizeCropChecks(const char* op, const Tensor& image) : op_(op), image_(image) {
    expect(image.dim() == 3 && (image.size(2) == 1 || image.size(2) == 3), "an image of shape (height, width, 1 or 3)");
    expect(image.scalar_type() == ScalarType::Byte, "an image of type torch.uint8, got ",
           dtype_text(image.scalar_type()));
    const int64_t channels = image.size(2);
    const bool lies_close =
        (channels == 1 || image.stride(2) == 1) && (image.size(1) <= 1 || image.stride(1) == channels);
    expect(lies_close, "an image whose pixels follow one another within a row, got strides ", image.stride(1), " and ",
           image.stride(2));
    for (int i = 0; i < 2; ++i) {
      expect(image.size(i) >= 1 && image.size(i) <= kMaxEdge, "edges of 1 to ", kMaxEdge, " pixels");
    }
    expect(is_stored(image), "an image with memory for its shape");
  }

  template <class... Parts>
  void expect(bool ok, const Parts&... parts) const {
    check(ok, "mobilevit_fast.", op_, ": expected ", parts..., " (image.shape=", shape_text(image_), ")");
  }

  // Two numbers each.
  void sizes(const int64_t* size, const int64_t* offset) const {
    for (int i = 0; i < 2; ++i) {
      expect(size[i] >= 1 && size[i] <= kMaxResized, "two edges of 1 to ", kMaxResized, " pixels as size, got ",
             size[i]);
      expect(offset[i] >= -kMaxResized && offset[i] <= kMaxResized, "an offset of fewer than 2^31 pixels, got ",
             offset[i]);
    }
  }
  void filter(int64_t resample) const {
    expect(resample >= static_cast<int64_t>(Filter::lanczos) && resample <= static_cast<int64_t>(Filter::hamming),
           "the number of a filter of PIL.Image.Resampling, 1 to 5, got ", resample);
  }
  // Of so many dimensions, the last three of which are channels, height and width.
  void out(const Tensor& out, int64_t dimensions) const {
    expect(out.scalar_type() == ScalarType::Byte, "out of type torch.uint8, got ", dtype_text(out.scalar_type()));
    expect(same_device(image_, out), "out on ", device_text(image_), ", like the image, got one on ", device_text(out));
    expect(is_stored(out), "out with memory for its shape");
    expect(out.dim() == dimensions && out.size(dimensions - 3) == image_.size(2), "out of shape (",
           dimensions == 4 ? "images, " : "", image_.size(2), ", height, width), got ", shape_text(out));
    for (int64_t i = dimensions - 2; i < dimensions; ++i) {
      expect(out.size(i) <= kMaxCrop, "out of edges of at most ", kMaxCrop, " pixels, got ", shape_text(out));
    }
  }

 private:
  static constexpr int64_t kMaxEdge = (int64_t{1} << 24) - 1;  // what Pillow, which counts in float32, resizes exactly
  static constexpr int64_t kMaxResized = INT32_MAX;
  static constexpr int64_t kMaxCrop = INT32_MAX - (1 << 16);  // in 32 bits, rounded up to whole blocks of a GPU

  const char* op_;
  const Tensor& image_;
};

inline void check_resize_crop(const Tensor& image, const std::vector<int64_t>& size, const std::vector<int64_t>& offset,
                              int64_t resample, const Tensor& out) {
  const ResizeCropChecks checks("resize_crop", image);
  checks.expect(size.size() == 2 && offset.size() == 2, "two numbers as size and as offset, got ", size.size(), " and ",
                offset.size());
  checks.sizes(size.data(), offset.data());
  checks.filter(resample);
  checks.out(out, 3);
}

}  // namespace mobilevit_fast
