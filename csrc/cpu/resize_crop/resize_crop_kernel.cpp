// Resizes the part of an image that a crop sees. Compiled once per instruction set, see simd.h.
//
// Rows are uint8 between the two passes, as Pillow has them. Where the pass over columns comes first, its rows lie in a
// ring, until the last row of the result that sees them is done. Where the pass over rows comes first, it makes four
// rows at a time for the other pass. Then a row is finished in a line of interleaved pixels.
#include "cpu/gemm/gemm_layout.h"
#include "cpu/scratch.h"
#include "finished_rows.h"
#include "pass_over_columns.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

constexpr int64_t kAlignment = 64;

class Resizing {
 public:
  explicit Resizing(const ResizeCropParams& p) : p_(p) {
    const bool ring = p.columns.pairs > 0 && p.rows.pairs > 0 && !p.rows_first;
    slots_ = ring ? 2 * p.rows.pairs + kRowsTogether : 0;
    const int64_t line = round_up(p.width + columns_together(p.channels), kAlignment) * p.channels + kLineSlack;
    line_bytes_ = round_up(line, kAlignment);
    row_bytes_ = round_up(product_of(p.in_w, p.channels), kAlignment);
    find_tail();
    const int64_t address_bytes = round_up(product_of(2 * p.rows.pairs, sizeof(uint8_t*)), kAlignment);
    const int64_t lines = sum_of(slots_, kRowsTogether);
    int64_t bytes = sum_of(address_bytes, product_of(lines, line_bytes_));
    bytes = sum_of(bytes, product_of(kRowsTogether, sum_of(row_bytes_, tail_bytes_)));
    char* memory = (char*)thread_scratch(bytes);
    addresses_ = (const uint8_t**)memory;
    ring_ = (uint8_t*)memory + address_bytes;
    lines_ = ring_ + slots_ * line_bytes_;
    tails_ = lines_ + kRowsTogether * line_bytes_;
    between_ = tails_ + kRowsTogether * tail_bytes_;
  }

  // Rows [begin, end) of those that the image covers.
  void run(int64_t begin, int64_t end) {
    if (p_.columns.pairs > 0 && slots_ == 0) return finish_by_columns(begin, end);
    next_ = 0;
    for (int64_t y = begin; y < end; ++y) finish_by_rows(y);
  }

 private:
  const uint8_t* row(int64_t i) const { return p_.image + smaller(i, p_.in_h - 1) * p_.image_row_stride; }
  uint8_t* slot(int64_t i) const { return ring_ + i % slots_ * line_bytes_; }
  uint8_t* target(int64_t y) const { return p_.y + (p_.top + y) * p_.y_row_stride + p_.left * p_.y_pixel_stride; }

  // Columns behind `plain_` would read beyond the end of a row: they have a copy of it with zeros behind.
  void find_tail() {
    if (p_.columns.pairs == 0) return;
    const int64_t step = columns_together(p_.channels), row_bytes = p_.in_w * p_.channels;
    const int64_t bytes = bytes_read(p_.channels, p_.columns.pairs);
    columns_ = round_up(p_.width, step);
    plain_ = columns_;
    while (plain_ > 0 && p_.columns.begins[plain_ - 1] * p_.channels + bytes > row_bytes) plain_ -= step;
    origin_ = plain_ < columns_ ? p_.columns.begins[plain_] * p_.channels : row_bytes;
    tail_bytes_ = round_up(sum_of(row_bytes - origin_, bytes), kAlignment);
  }

  // The pass over columns for four rows.
  void pass_over_columns(const uint8_t* const (&rows)[kRowsTogether], uint8_t* const (&lines)[kRowsTogether]) const {
    FourRows four{}, tails{};
    const int64_t bytes = p_.in_w * p_.channels - origin_;
    tails.origin = origin_;
    for (int64_t i = 0; i < kRowsTogether; ++i) {
      four.rows[i] = rows[i], four.lines[i] = tails.lines[i] = lines[i];
      uint8_t* tail = tails_ + i * tail_bytes_;
      std::memcpy(tail, rows[i] + origin_, bytes);
      std::memset(tail + bytes, 0, tail_bytes_ - bytes);
      tails.rows[i] = tail;
    }
    add_columns(p_.columns, p_.channels, four, 0, plain_);
    add_columns(p_.columns, p_.channels, tails, plain_, columns_);
  }

  // The pass over rows for row y of the result, of rows that `source(i)` has.
  template <class Source>
  void pass_over_rows(int64_t y, const Source& source, uint8_t* line, int64_t bytes) const {
    const int64_t taps = 2 * p_.rows.pairs;
    for (int64_t k = 0; k < taps; ++k) addresses_[k] = source(smaller(p_.rows.begins[y] + k, p_.in_h - 1));
    add_rows(addresses_, p_.rows.words + y * taps, p_.rows.pairs, line, bytes);
  }

  void finish_by_columns(int64_t begin, int64_t end) const {
    for (int64_t first = begin; first < end; first += kRowsTogether) {
      const uint8_t* rows[kRowsTogether];
      uint8_t* lines[kRowsTogether];
      for (int64_t i = 0; i < kRowsTogether; ++i) {
        const int64_t y = smaller(first + i, end - 1);
        lines[i] = lines_ + i * line_bytes_;
        rows[i] = row(y);
        if (p_.rows.pairs == 0) continue;
        uint8_t* between = between_ + i * row_bytes_;
        if (first + i < end) {
          pass_over_rows(y, [&](int64_t k) { return row(k); }, between, p_.in_w * p_.channels);
        }
        rows[i] = first + i < end ? between : rows[0];
      }
      pass_over_columns(rows, lines);
      for (int64_t y = first; y < smaller(first + kRowsTogether, end); ++y) {
        store_row(p_, lines[y - first], target(y));
      }
    }
  }

  void finish_by_rows(int64_t y) {
    const int64_t bytes = p_.width * p_.channels;
    if (p_.rows.pairs == 0) return store_row(p_, row(y), target(y));
    uint8_t* line = is_line(p_) ? target(y) : lines_;
    if (slots_ == 0) {
      pass_over_rows(y, [&](int64_t k) { return row(k); }, line, bytes);
    } else {
      fill_ring(p_.rows.begins[y]);
      pass_over_rows(y, [&](int64_t k) { return slot(k); }, line, bytes);
    }
    if (line == lines_) store_row(p_, line, target(y));
  }

  // Rows from `begin` on that a window may see.
  void fill_ring(int64_t begin) {
    next_ = larger(next_, begin);
    for (const int64_t end = smaller(begin + 2 * p_.rows.pairs, p_.in_h); next_ < end; next_ += kRowsTogether) {
      const uint8_t* rows[kRowsTogether];
      uint8_t* slots[kRowsTogether];
      for (int64_t i = 0; i < kRowsTogether; ++i) rows[i] = row(next_ + i), slots[i] = slot(next_ + i);
      pass_over_columns(rows, slots);
    }
  }

  const ResizeCropParams p_;
  int64_t slots_, line_bytes_, row_bytes_, tail_bytes_ = 0;
  int64_t columns_ = 0, plain_ = 0, origin_ = 0;
  int64_t next_ = 0;  // row that the ring has not
  const uint8_t** addresses_;
  uint8_t *ring_, *lines_, *tails_, *between_;
};

}  // namespace

void resize_crop(const ResizeCropParams& p, int64_t begin, int64_t end) {
  const int64_t first = larger(begin, p.top), last = smaller(end, p.top + p.height);
  for (int64_t y = begin; y < end; ++y) {
    uint8_t* row = p.y + y * p.y_row_stride;
    const bool covered = y >= first && y < last;
    clear_row(p, row, 0, covered ? p.left : p.crop_w);
    if (covered) clear_row(p, row, p.left + p.width, p.crop_w);
  }
  if (first < last) Resizing(p).run(first - p.top, last - p.top);
}

}  // namespace mobilevit_fast::cpu::MVF_ISA
