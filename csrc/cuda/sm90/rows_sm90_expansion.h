// What the warps of rows_sm90_kernel.h do that have expanded channels: rows of input come into a ring, are expanded,
// convolved, and written to tiles.
#pragma once

#include "cuda/sizes.h"
#include "rows_sm90.h"

namespace mobilevit_fast::cuda {

// SiLU of scale · x + bias, of two channels whose scales and biases are halved: x/2 (1 + tanh(x/2)).
MVF_DEVICE uint32_t silu_pair(float x, float y, const Float4& affine) {
  const float u = x * affine.x + affine.z, v = y * affine.y + affine.w;
  return pack<Half>(u * tanh_approximate(u) + u, v * tanh_approximate(v) + v);
}

template <class K>
class RowsExpansion {
 public:
  MVF_DEVICE RowsExpansion(const RowsParams& p, const typename K::Block& b, int out_height)
      : p_(p), b_(b), out_height_(out_height), from_(from(b.lane)), to_(to(b.warp, b.lane)) {}

  MVF_DEVICE void run() {
    load_weights();
    barrier_wait(b_.constants_came(), 0);
    grid_wait();
    if (K::kPhased) grid_launch_dependents();
    rows_ = b_.last * K::kStep + (K::kStep == 1 && b_.last % out_height_ != 0) - b_.first_input();
    if (b_.warp == 0) {
      for (int row = 0; row < K::kRing && row < rows_; ++row) fetch(row);
    }
    clear();
    if constexpr (K::kStep == 1) {
      go_down();
    } else {
      go_down_two();
    }
  }

 private:
  static constexpr int kStrips = K::kStrips, kGroups = K::kGroups, kDepth = K::kDepth;
  static constexpr int kState = K::kStep == 1 ? 4 : 1;
  static constexpr int kPart = K::kStep == 2 && kStrips > 4 ? 4 : kStrips;  // strips at a time

  // What a lane names to load_matrix, in a row of input: pixel lane % 8 of the even ones or the odd ones, lower or
  // upper 8 channels. Further channels of a box are where bits 5 and 6 are others.
  static MVF_DEVICE uint32_t from(int lane) {
    const int swizzled = (lane / 16) ^ lane % 8 / (64 / K::kBox);
    return lane / 8 % 2 * K::kBoxBytes + lane % 8 * K::kBox * 2 + swizzled * 16;
  }
  // And to store_matrix, in a tile: pixel lane % 8, of stride 1 even or odd, channels of a group.
  static MVF_DEVICE uint32_t to(int warp, int lane) {
    const int group = warp * kGroups + (K::kStep == 1 ? lane / 16 : lane / 8);
    const int pixel = lane % 8 + (K::kStep == 1 ? lane / 8 % 2 * 8 : 0);
    return group / 8 * 8192 + (group % 8 ^ lane % 8) * 16 + pixel * 128;
  }

  MVF_DEVICE void load_weights() {
    MVF_UNROLL
    for (int g = 0; g < kGroups; g += 2) {
      const int pair = b_.warp * (kGroups / 2) + g / 2;
      MVF_UNROLL
      for (int s = 0; s < kDepth; ++s) {
        const Bytes16 w =
            load_global(p_.expand_weight + ((pair / 2 * kDepth + s) * 2 + pair % 2) * kWarpSize + b_.lane);
        weight_[g][s][0] = w.word[0], weight_[g][s][1] = w.word[1];
        weight_[g + 1][s][0] = w.word[2], weight_[g + 1][s][1] = w.word[3];
      }
    }
  }

  MVF_DEVICE void fetch(int row) const {
    if (b_.lane == 0) barrier_expect(b_.came(row), K::kRowBytes);
    sync_warp();
    if (b_.lane < K::kRowBytes / K::kBoxBytes) {
      copy_tile(b_.row(row) + b_.lane * K::kBoxBytes, &p_.rows, b_.lane / 2 * K::kBox, b_.lane % 2, 0,
                b_.first_input() + row, b_.came(row));
    }
  }

  MVF_DEVICE void begin_row() const { barrier_wait(b_.came(row_), row_ / K::kRing & 1); }
  // This warp has read the row. One warp, another for each row, fetches a row to the place of one that all have read:
  // most likely they have, since it is kBehind rows above.
  MVF_DEVICE void end_row() {
    sync_warp();
    if (b_.lane == 0) barrier_arrive(b_.read(row_));
    const int above = row_ - K::kBehind, next = above + K::kRing;
    if (above >= 0 && next < rows_ && row_ % K::kWarps == b_.warp) {
      barrier_wait(b_.read(above), above / K::kRing & 1);
      fetch(next);
    }
    ++row_;
  }

  // A lane's place among the four that share a pixel. Made of the thread's index anew, it takes no register meanwhile.
  static MVF_DEVICE int member() { return thread_index() % 4; }

  MVF_DEVICE uint32_t constants(int group) const {
    return b_.base + K::kAtConstants + (b_.warp * kGroups + group) * (kRowsConstantPieces * 16);
  }
  // Halves of scales and biases: of the expansion, of the depthwise convolution.
  MVF_DEVICE Float4 affine(int group, bool depthwise) const {
    return load_shared_at<Float4>(constants(group) + (depthwise ? 13 : 9) * 16 + member() * 16);
  }
  MVF_DEVICE void load_taps(int group, uint32_t (&tap)[9]) const {
    const int t = member();
    const Bytes16 first = load_shared_at<Bytes16>(constants(group) + t * 32);
    const Bytes16 second = load_shared_at<Bytes16>(constants(group) + t * 32 + 16);
    MVF_UNROLL
    for (int i = 0; i < 4; ++i) tap[i] = first.word[i], tap[4 + i] = second.word[i];
    tap[8] = load_shared_at<uint32_t>(constants(group) + 128 + t * 4);
  }

  MVF_DEVICE void clear() {
    MVF_UNROLL
    for (int s = 0; s < kStrips; ++s) {
      MVF_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        MVF_UNROLL
        for (int i = 0; i < kState; ++i) state_[s][g][i] = 0;
      }
    }
  }

  // Expands a part of the row at hand into values_.
  MVF_DEVICE void expand(int first) {
    const uint32_t from = b_.row(row_) + from_ + first * 16 * K::kBox;
    Float4 scales[kGroups];
    MVF_UNROLL
    for (int g = 0; g < kGroups; ++g) scales[g] = affine(g, false);
    MVF_UNROLL
    for (int s = 0; s < kPart; ++s) {
      float sums[kGroups][4];
      MVF_UNROLL
      for (int k = 0; k < kDepth; ++k) {
        uint32_t pixels[4];
        constexpr int kSteps = K::kBox / 16;  // of a box
        load_matrix_at(pixels, (from ^ k % kSteps * 32) + k / kSteps * 2 * K::kBoxBytes + s * 16 * K::kBox);
        MVF_UNROLL
        for (int g = 0; g < kGroups; ++g) {
          if (k == 0) {
            begin_products(sums[g], pixels, weight_[g][k]);
          } else {
            add_products(sums[g], pixels, weight_[g][k]);
          }
        }
      }
      MVF_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        values_[s][g][0] = silu_pair(sums[g][0], sums[g][1], scales[g]);
        values_[s][g][1] = silu_pair(sums[g][2], sums[g][3], scales[g]);
      }
    }
  }

  // Of the row of results at hand, `place` is which one of the tile it is.
  MVF_DEVICE void wait_tile(int place) const {
    if (!K::kPhased && place == 0) barrier_wait(b_.empty(tile_), (tile_ / 2 & 1) ^ 1);
  }
  // Writes a part of a convolved row, which lies in values_, to the tile.
  MVF_DEVICE void store(int place, int first) const {
    const uint32_t to = b_.tile(tile_) + to_ + (place * K::kOutWidth + first * (16 / K::kStep)) * 128;
    MVF_UNROLL
    for (int s = 0; s < kPart; ++s) {
      if constexpr (K::kStep == 1) {
        store_matrix_at(to + s * 2048, {values_[s][0][0], values_[s][0][1], values_[s][1][0], values_[s][1][1]});
      } else {
        store_matrix_at(to + s * 1024, {values_[s][0][0], values_[s][1][0], values_[s][2][0], values_[s][3][0]});
      }
    }
  }
  MVF_DEVICE void finish_tile() {
    if constexpr (K::kPhased) {
      sync_block();
      K::project_together(p_, b_, tile_);
    } else {
      fence_async();
      sync_warp();
      if (b_.lane == 0) barrier_arrive(b_.full(tile_));
    }
    ++tile_;
  }

  // The word of the lane four before, or of the last four of the strip before; of the lane four after, or of the first
  // four of the next strip.
  MVF_DEVICE uint32_t left(uint32_t word, uint32_t before) const {
    return shuffle(b_.lane >= 28 ? before : word, (b_.lane + 28) & 31);
  }
  MVF_DEVICE uint32_t right(uint32_t word, uint32_t after) const {
    return shuffle(b_.lane < 4 ? after : word, (b_.lane + 4) & 31);
  }

  // --- Stride 1: a row ends the row of results above it, adds to its own, and begins the one below.

  MVF_DEVICE void go_down() {
    static_assert(K::kStep == 2 || K::kRowsOfTile == 1);
    int y = b_.first_input() % out_height_;
    MVF_NO_UNROLL
    while (row_ < rows_) {
      const bool ends_one = y > 0 && row_ > static_cast<int>(b_.cut);
      begin_row();
      expand(0);
      end_row();
      if (ends_one) wait_tile(0);
      convolve();
      if (ends_one) store(0, 0), finish_tile();
      if (++y == out_height_) {
        y = 0;
        if (b_.first_input() + row_ <= b_.last) end_image();
        clear();
      }
    }
  }

  MVF_DEVICE void convolve() {
    MVF_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      uint32_t tap[9], before = 0;
      load_taps(g, tap);
      const Float4 scales = affine(g, true);
      MVF_UNROLL
      for (int s = 0; s < kStrips; ++s) {
        uint32_t (&value)[2] = values_[s][g];
        const uint32_t after = s + 1 < kStrips ? values_[s + 1 < kStrips ? s + 1 : s][g][0] : 0u;
        const uint32_t x[4] = {left(value[1], before), value[0], value[1], right(value[0], after)};
        before = value[1];
        MVF_UNROLL
        for (int m = 0; m < 2; ++m) {
          uint32_t above = state_[s][g][m], here = state_[s][g][2 + m], below = multiply_half2(x[m], tap[0]);
          MVF_UNROLL
          for (int k = 0; k < 3; ++k) {
            above = fma_half2(x[m + k], tap[6 + k], above), here = fma_half2(x[m + k], tap[3 + k], here);
            if (k > 0) below = fma_half2(x[m + k], tap[k], below);
          }
          state_[s][g][m] = here, state_[s][g][2 + m] = below;
          const Float2 sums = unpack<Half>(above);
          value[m] = silu_pair(sums.x, sums.y, scales);
        }
      }
    }
  }

  // The last row of results of an image has no row of input below it.
  MVF_DEVICE void end_image() {
    wait_tile(0);
    MVF_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      const Float4 scales = affine(g, true);
      MVF_UNROLL
      for (int s = 0; s < kStrips; ++s) {
        MVF_UNROLL
        for (int m = 0; m < 2; ++m) {
          const Float2 sums = unpack<Half>(state_[s][g][m]);
          values_[s][g][m] = silu_pair(sums.x, sums.y, scales);
        }
      }
    }
    store(0, 0), finish_tile();
  }

  // --- Stride 2: the even row adds to a row of results, the odd one ends it and begins the next.

  MVF_DEVICE void go_down_two() {
    static_assert(K::kStep == 1 || K::kRowsOfTile > 1);
    int y = b_.first % out_height_ - b_.cut;
    MVF_NO_UNROLL
    while (row_ < rows_) {
      const int result = (row_ + b_.cut) / 2 - b_.cut, place = result % K::kRowsOfTile;
      if (result >= 0) row_of_stride_2<0>(place);
      row_of_stride_2<1>(place);
      if (place == K::kRowsOfTile - 1 || row_ == rows_) finish_tile();
      if (++y == out_height_) y = 0, clear();
    }
  }

  template <int kOdd>
  MVF_DEVICE void row_of_stride_2(int place) {
    uint32_t before[kGroups] = {};
    begin_row();
    MVF_UNROLL
    for (int part = 0; part < kStrips; part += kPart) {
      expand(part);
      if (part + kPart == kStrips) end_row();
      if (kOdd == 1 && part == 0) wait_tile(place);
      MVF_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        uint32_t tap[9];
        load_taps(g, tap);
        const Float4 scales = affine(g, true);
        MVF_UNROLL
        for (int s = 0; s < kPart; ++s) {
          uint32_t (&value)[2] = values_[s][g];
          const uint32_t x[3] = {left(value[1], before[g]), value[0], value[1]};
          before[g] = value[1];
          uint32_t sum = state_[part + s][g][0];
          MVF_UNROLL
          for (int k = 0; k < 3; ++k) sum = fma_half2(x[k], tap[3 + 3 * kOdd + k], sum);
          if (kOdd == 1) {
            const Float2 sums = unpack<Half>(sum);
            value[0] = silu_pair(sums.x, sums.y, scales);
            sum = multiply_half2(x[0], tap[0]);
            sum = fma_half2(x[1], tap[1], sum), sum = fma_half2(x[2], tap[2], sum);
          }
          state_[part + s][g][0] = sum;
        }
      }
      if (kOdd == 1 && place >= 0) store(place, part);
    }
  }

  const RowsParams& p_;
  const typename K::Block& b_;
  const int out_height_;
  const uint32_t from_, to_;
  int rows_ = 0, row_ = 0;  // of input
  int tile_ = 0;
  uint32_t weight_[kGroups][kDepth][2];
  uint32_t state_[kStrips][kGroups][kState];  // accumulators of the rows of results that have begun
  uint32_t values_[kPart][kGroups][2];        // expanded, then convolved: even and odd pixels
};

}  // namespace mobilevit_fast::cuda
