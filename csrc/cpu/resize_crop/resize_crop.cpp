// torch.ops.mobilevit_fast.resize_crop.cpu: checks, windows, launch.
#include "resize_crop.h"

#include "common/checks.h"
#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {
namespace {

using Kernel = void (*)(const ResizeCropParams&, int64_t, int64_t);

#define MVF_ENTRY(isa) isa::resize_crop,
constexpr Kernel kVariants[] = {MVF_CPU_ISAS(MVF_ENTRY)};
#undef MVF_ENTRY

constexpr int64_t kMaxEdge = (int64_t{1} << 24) - 1;  // what Pillow, which counts pixels in float32, resizes exactly
constexpr int64_t kMaxResized = INT32_MAX;

// The windows of the places of an edge that a crop sees, and the part of the edge that they see.
class Windows {
 public:
  Windows(Filter filter, const Edge& edge, int64_t together, int64_t pairs_together) : begin_(edge.first) {
    end_ = edge.first + edge.count;
    if (edge.in == edge.out) return;
    const int64_t places = round_up(edge.count, together);
    pairs_ = round_up(ceil_div(window_length(filter, edge), 2), pairs_together);
    begins_.resize(places);
    words_.resize(product_of(places, 2, pairs_));
    make_windows(filter, edge, pairs_, begins_.data(), words_.data());
    begin_ = begins_[0], end_ = begin_;
    for (int64_t i = 0; i < places; ++i) {
      if (i >= edge.count) begins_[i] = begins_[edge.count - 1] + static_cast<int32_t>(begin_);
      begins_[i] -= static_cast<int32_t>(begin_);
    }
    end_ = smaller(begin_ + begins_[places - 1] + 2 * pairs_, edge.in);
  }

  WindowTable table() const { return {begins_.data(), words_.data(), pairs_}; }
  int64_t begin() const { return begin_; }
  int64_t size() const { return end_ - begin_; }

 private:
  std::vector<int32_t> begins_, words_;
  int64_t pairs_ = 0, begin_, end_;
};

// The part of a crop that the resized image covers, along one edge.
struct Cover {
  Cover(int64_t in, int64_t out, int64_t offset, int64_t crop)
      : begin(smaller(larger(-offset, 0), crop)), end(larger(smaller(out - offset, crop), begin)) {
    edge = {in, out, begin + offset, end - begin};
  }
  int64_t begin, end;
  Edge edge;
};

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
  const bool lies_close = (channels == 1 || image.stride(2) == 1) && (image.size(1) <= 1 || image.stride(1) == channels);
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
  const Filter filter = static_cast<Filter>(resample);
  const Cover rows(image.size(0), size[0], offset[0], out.size(1));
  const Cover columns(image.size(1), size[1], offset[1], out.size(2));

  ResizeCropParams p{};
  p.channels = image.size(2);
  p.crop_h = out.size(1), p.crop_w = out.size(2);
  p.y = static_cast<uint8_t*>(out.mutable_data_ptr());
  p.y_channel_stride = out.stride(0), p.y_row_stride = out.stride(1), p.y_pixel_stride = out.stride(2);
  if (flip_channels) {
    p.y += (p.channels - 1) * p.y_channel_stride;
    p.y_channel_stride = -p.y_channel_stride;
  }
  const Kernel kernel = kVariants[static_cast<int>(active_isa())];
  if (rows.edge.count == 0 || columns.edge.count == 0) {  // nothing but padding
    kernel(p, 0, p.crop_h);
    return;
  }
  const Windows row_windows(filter, rows.edge, 1, 1);
  const Windows column_windows(filter, columns.edge, columns_together(p.channels), pairs_together(p.channels));
  p.image_row_stride = image.size(0) > 1 ? image.stride(0) : 0;
  p.image = static_cast<const uint8_t*>(image.const_data_ptr()) + row_windows.begin() * p.image_row_stride +
            column_windows.begin() * p.channels;
  p.in_h = row_windows.size(), p.in_w = column_windows.size();
  p.rows = row_windows.table(), p.columns = column_windows.table(), p.rows_first = rows_first;
  p.top = rows.begin, p.left = columns.begin;
  p.height = rows.edge.count, p.width = columns.edge.count;
  kernel(p, 0, p.crop_h);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, CPU, m) { m.impl("resize_crop.cpu", TORCH_BOX(&resize_crop)); }

}  // namespace mobilevit_fast::cpu
