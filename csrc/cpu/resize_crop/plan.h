// From sizes to parameters of the kernel: the windows of what a crop sees, and which part of an image that is.
#pragma once

#include <vector>

#include "cpu/gemm/gemm_layout.h"
#include "resize_crop.h"

namespace mobilevit_fast::cpu {

// The windows of the places of an edge that a crop sees, and the part of the edge that they see.
class Windows {
 public:
  Windows() = default;
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
  int64_t pairs_ = 0, begin_ = 0, end_ = 0;
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

// An image of in_h x in_w pixels becomes one of out_h x out_w, of which the crop begins at (top, left).
struct Resize {
  Filter filter;
  int64_t in_h, in_w, out_h, out_w, top, left;
  bool rows_first;
};

// Parameters for all that a resize asks for, from those that say where image and crop lie. They refer to the plan.
class ResizePlan {
 public:
  ResizePlan(const Resize& resize, const ResizeCropParams& where)
      : p_(where),
        row_cover_(resize.in_h, resize.out_h, resize.top, p_.crop_h),
        column_cover_(resize.in_w, resize.out_w, resize.left, p_.crop_w) {
    if (row_cover_.edge.count == 0 || column_cover_.edge.count == 0) return;  // nothing but padding
    rows_ = Windows(resize.filter, row_cover_.edge, 1, 1);
    columns_ = Windows(resize.filter, column_cover_.edge, columns_together(p_.channels), pairs_together(p_.channels));
    p_.image += rows_.begin() * p_.image_row_stride + columns_.begin() * p_.channels;
    p_.in_h = rows_.size(), p_.in_w = columns_.size();
    p_.rows = rows_.table(), p_.columns = columns_.table(), p_.rows_first = resize.rows_first;
    p_.top = row_cover_.begin, p_.left = column_cover_.begin;
    p_.height = row_cover_.edge.count, p_.width = column_cover_.edge.count;
  }

  const ResizeCropParams& params() const { return p_; }

 private:
  ResizeCropParams p_;
  Cover row_cover_, column_cover_;
  Windows rows_, columns_;
};

}  // namespace mobilevit_fast::cpu
