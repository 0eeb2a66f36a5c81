// A model's first convolution: 3x3 with stride 2 and padding 1 from three channels to 16, with scale, bias and SiLU, of
// images of uint8 or 16-bit elements, channels innermost or planar. Bound by memory.
//
// A block computes some rows of 128 output pixels. In shared memory a row of the image is its elements, behind four of
// which the last three are the pixel to its left. So a window's row begins at an odd element, and with the element
// before it is 5 words, at 3 words from one output to the next. The words 0 to 3 of a window's three rows are three
// quarters of the product's depth, their words 4 the last one: a word of a fragment is one of shared memory, without
// bank conflicts.
#pragma once

#include <type_traits>

#include "cuda/sizes.h"
#include "device_sm90.h"
#include "stem_sm90.h"

namespace mobilevit_fast::cuda {

// Two of four bytes, which the selector names between those of 0x64, as values of T.
template <class T>
MVF_DEVICE uint32_t two_bytes(uint32_t bytes, uint32_t selector);
template <>
MVF_DEVICE uint32_t two_bytes<Half>(uint32_t bytes, uint32_t selector) {
  return subtract_half2(permute_bytes(bytes, 0x64646464u, selector), 0x64006400u);  // 0x6400 + byte is 1024 + byte
}
template <>
MVF_DEVICE uint32_t two_bytes<BFloat16>(uint32_t bytes, uint32_t selector) {
  const uint32_t two = permute_bytes(bytes, 0u, selector);
  return pack<BFloat16>(static_cast<float>(two & 0xffffu), static_cast<float>(two >> 16));
}

// Neighbouring elements of a row on their way from global to shared memory: kNumbers of the tile's row, a whole number
// of pixels of all planes or a piece of the only one. store_last: its last four alone, which end with a pixel.
template <class T, bool kBytes, bool kPlanar>
struct StemPiece;

template <class T>
struct StemPiece<T, true, false> {
  static constexpr int kNumbers = 8;
  Bytes8 v;

  MVF_DEVICE void load(const uint8_t* row, int at, int) { v = load_result(reinterpret_cast<const Bytes8*>(row) + at); }
  MVF_DEVICE void store(uint32_t to) const {
    store_shared_at(to, Bytes8{{two_bytes<T>(v.word[0], 0x4140), two_bytes<T>(v.word[0], 0x4342)}});
    store_last(to + 8);
  }
  MVF_DEVICE void store_last(uint32_t to) const {
    store_shared_at(to, Bytes8{{two_bytes<T>(v.word[1], 0x4140), two_bytes<T>(v.word[1], 0x4342)}});
  }
};

template <class T>
struct StemPiece<T, false, false> {
  static constexpr int kNumbers = 4;
  Bytes8 v;

  MVF_DEVICE void load(const T* row, int at, int) { v = load_result(reinterpret_cast<const Bytes8*>(row) + at); }
  MVF_DEVICE void store(uint32_t to) const { store_shared_at(to, v); }
  MVF_DEVICE void store_last(uint32_t to) const { store_shared_at(to, v); }
};

template <class T>
struct StemPiece<T, true, true> {
  static constexpr int kNumbers = 12;
  uint32_t v[3];

  MVF_DEVICE void load(const uint8_t* row, int at, int plane) {
    MVF_UNROLL
    for (int c = 0; c < 3; ++c) {
      v[c] = load_result(reinterpret_cast<const uint32_t*>(row + static_cast<int64_t>(c) * plane) + at);
    }
  }
  MVF_DEVICE void store(uint32_t to) const {
    store_shared_at(to, Bytes8{{pair(v[0], v[1], 0x40), pair(v[2], v[0], 0x50)}});
    store_shared_at(to + 8, Bytes8{{pair(v[1], v[2], 0x51), pair(v[0], v[1], 0x62)}});
    store_last(to + 16);
  }
  MVF_DEVICE void store_last(uint32_t to) const {
    store_shared_at(to, Bytes8{{pair(v[2], v[0], 0x72), pair(v[1], v[2], 0x73)}});
  }
  static MVF_DEVICE uint32_t pair(uint32_t x, uint32_t y, uint32_t selector) {
    return two_bytes<T>(permute_bytes(x, y, selector), 0x4140);
  }
};

template <class T>
struct StemPiece<T, false, true> {
  static constexpr int kNumbers = 12;
  Bytes8 v[3];

  MVF_DEVICE void load(const T* row, int at, int plane) {
    MVF_UNROLL
    for (int c = 0; c < 3; ++c) {
      v[c] = load_result(reinterpret_cast<const Bytes8*>(row + static_cast<int64_t>(c) * plane) + at);
    }
  }
  MVF_DEVICE void store(uint32_t to) const {
    store_shared_at(to, Bytes8{{pair(0, 1, 0, 0x5410), pair(2, 0, 0, 0x7610)}});
    store_shared_at(to + 8, Bytes8{{pair(1, 2, 0, 0x7632), pair(0, 1, 1, 0x5410)}});
    store_last(to + 16);
  }
  MVF_DEVICE void store_last(uint32_t to) const {
    store_shared_at(to, Bytes8{{pair(2, 0, 1, 0x7610), pair(1, 2, 1, 0x7632)}});
  }
  MVF_DEVICE uint32_t pair(int x, int y, int word, uint32_t selector) const {
    return permute_bytes(v[x].word[word], v[y].word[word], selector);
  }
};

// Tiles of kRows rows. kWhole: they fill images of an even height.
template <class T, bool kBytes, bool kPlanar, int kRows, bool kWhole>
struct StemSm90 {
  using Params = StemSm90Params;
  using In = std::conditional_t<kBytes, uint8_t, T>;
  using Piece = StemPiece<T, kBytes, kPlanar>;

  static constexpr int kThreads = 128, kWarps = kThreads / kWarpSize, kCluster = 1, kRegisters = 64;
  static constexpr int kColumns = kStemSm90Columns, kOutputs = kStemSm90Outputs;
  static constexpr int kExtent = 2 * kRows + 1;
  // Words from row to row: those of neighbouring outputs and rows that are read at once lie in different banks.
  static constexpr int kPitch = 386;
  // Of a row, pieces of a lane; rows of a warp that are under way together.
  static constexpr int kEach = 6 * kColumns / Piece::kNumbers / kWarpSize;
  static constexpr int kTogether = 32 / (kEach * static_cast<int>(sizeof(Piece)) / 4);

  static MVF_HOST_DEVICE int across(const Params& p) { return ceil_div(p.out_w, kColumns); }
  static MVF_HOST_DEVICE int down(const Params& p) { return ceil_div(p.out_h, kRows); }
  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.batch * across(p) * down(p)); }
  static size_t shared_bytes(const Params&) { return kExtent * kPitch * 4; }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    visit("x", p.x, static_cast<size_t>(p.batch) * p.height * p.width * 3 * sizeof(In));
    visit("y", p.y, static_cast<size_t>(p.batch) * p.out_h * p.out_w * kOutputs * sizeof(T));
    visit("weight", p.weight, kStemSm90WeightBytes);
    visit("scale", p.scale, kOutputs * sizeof(float));
    visit("bias", p.bias, kStemSm90Places * kOutputs * sizeof(float));
  }

  // A block's place: its first output pixel.
  struct Tile {
    int image, top, left;
  };

  static MVF_DEVICE void run(const Params& p) {
    const int index = block_index(), lane = thread_index() % kWarpSize, member = lane % 4;
    const Tile tile{index / (across(p) * down(p)), index / across(p) % down(p) * kRows, index % across(p) * kColumns};
    const uint32_t input = shared_memory_begin();
    grid_launch_dependents();
    grid_wait();
    load_input(p, tile, input);
    uint32_t b[2][2][2];  // of a step and half of the outputs
    MVF_UNROLL
    for (int i = 0; i < 4; ++i) {
      const Bytes8 both = load_global(reinterpret_cast<const Bytes8*>(p.weight) + i * kWarpSize + lane);
      b[i / 2][i % 2][0] = both.word[0], b[i / 2][i % 2][1] = both.word[1];
    }
    const Float4 scale = halved(p.scale + member * 4), bias = halved(p.bias + member * 4);
    sync_block();
    for (int i = thread_index() / kWarpSize; i < kRows * kColumns / kMatrixRows; i += kWarps) {
      const int row = i / (kColumns / kMatrixRows);
      multiply(p, tile, input, b, scale, bias, row, i % (kColumns / kMatrixRows) * kMatrixRows + lane / 4);
    }
  }

 private:
  // Exactly: silu(2 u) = u + u tanh(u).
  static MVF_DEVICE Float4 halved(const float* from) {
    const Float4 v = load_global(reinterpret_cast<const Float4*>(from));
    return {0.5f * v.x, 0.5f * v.y, 0.5f * v.z, 0.5f * v.w};
  }

  static MVF_DEVICE const In* row_of(const Params& p, const Tile& tile, int row) {
    const int64_t first = static_cast<int64_t>(tile.image) * 3 * p.height * p.width;
    return static_cast<const In*>(p.x) + first + static_cast<int64_t>(row * p.width) * (kPlanar ? 1 : 3);
  }
  static MVF_DEVICE bool is_inside(const Params& p, int row) { return row >= 0 && (kWhole || row < p.height); }

  static MVF_DEVICE void load_input(const Params& p, const Tile& tile, uint32_t input) {
    const int first = 2 * tile.top - 1, left = 2 * tile.left, plane = p.height * p.width;
    const int pieces = (p.width - left) * 3 / Piece::kNumbers;  // of a row that the image has
    const int warp = thread_index() / kWarpSize, lane = thread_index() % kWarpSize;
    MVF_NO_UNROLL
    for (int begin = warp; begin < kExtent; begin += kTogether * kWarps) {
      Piece piece[kTogether][kEach];
      const In* from = row_of(p, tile, first + begin) + left * (kPlanar ? 1 : 3);
      MVF_UNROLL
      for (int k = 0; k < kTogether; ++k) {
        const bool inside = begin + k * kWarps < kExtent && is_inside(p, first + begin + k * kWarps);
        MVF_UNROLL
        for (int m = 0; m < kEach; ++m) {
          const int at = lane + m * kWarpSize;
          piece[k][m] = {};
          if (inside && (kWhole || at < pieces)) piece[k][m].load(from, at, plane);
        }
        from += static_cast<int64_t>(kWarps * (kPlanar ? 1 : 3)) * p.width;
      }
      MVF_UNROLL
      for (int k = 0; k < kTogether; ++k) {
        if (begin + k * kWarps >= kExtent) break;
        const uint32_t to = input + (begin + k * kWarps) * kPitch * 4 + 8 + lane * Piece::kNumbers * 2;
        MVF_UNROLL
        for (int m = 0; m < kEach; ++m) piece[k][m].store(to + m * kWarpSize * Piece::kNumbers * 2);
      }
    }
    if (thread_index() >= kExtent) return;
    const int row = first + thread_index();
    Piece before{};  // of which the last pixel is the one to the left
    if (left > 0 && is_inside(p, row)) before.load(row_of(p, tile, row) + left * (kPlanar ? 1 : 3), -1, plane);
    before.store_last(input + thread_index() * kPitch * 4);
  }

  // 16 outputs of 16 pixels of a row, of which a lane has four of `column` and of the eighth behind it.
  static MVF_DEVICE void multiply(const Params& p, const Tile& tile, uint32_t input, const uint32_t (&b)[2][2][2],
                                  const Float4& scale, const Float4& bias, int row, int column) {
    const int member = thread_index() % 4;
    const uint32_t from = input + (2 * row * kPitch + 3 * column) * 4;
    const uint32_t last = member < 3 ? (member * kPitch + 4) * 4 : 16;  // the fourth has no weight
    uint32_t a[2][4];
    MVF_UNROLL
    for (int i = 0; i < 2; ++i) {
      const uint32_t at = from + i * 96;
      a[0][i] = load_shared_at<uint32_t>(at + member * 4);
      a[0][2 + i] = load_shared_at<uint32_t>(at + (kPitch + member) * 4);
      a[1][i] = load_shared_at<uint32_t>(at + (2 * kPitch + member) * 4);
      a[1][2 + i] = load_shared_at<uint32_t>(at + last);
    }
    if (!kBytes) {  // an element without a weight may be infinite: that before the window, and the fourth word 4
      const uint32_t first_word = member == 0 ? 0xffff0000u : 0xffffffffu, last_word = member < 3 ? 0xffffffffu : 0u;
      MVF_UNROLL
      for (int i = 0; i < 2; ++i) {
        a[0][i] &= first_word, a[0][2 + i] &= first_word, a[1][i] &= first_word, a[1][2 + i] &= last_word;
      }
    }
    float sums[2][4] = {};
    MVF_UNROLL
    for (int step = 0; step < 2; ++step) {
      multiply_matrix<T>(sums[0], a[step], b[step][0]);
      multiply_matrix<T>(sums[1], a[step], b[step][1]);
    }
    MVF_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int h = tile.top + row, w = tile.left + column + 8 * i;
      if (!kWhole && (h >= p.out_h || w >= p.out_w)) continue;
      Float4 here = bias;
      if constexpr (kBytes) {
        const int place = (h == 0 ? 1 : 0) + (!kWhole && 2 * h + 1 >= p.height ? 2 : 0) + (w == 0 ? 4 : 0);
        if (place > 0) here = halved(p.bias + place * kOutputs + member * 4);
      }
      const Bytes8 four{
          {pack<T>(silu_of_half(sums[0][2 * i], scale.x, here.x), silu_of_half(sums[0][2 * i + 1], scale.y, here.y)),
           pack<T>(silu_of_half(sums[1][2 * i], scale.z, here.z), silu_of_half(sums[1][2 * i + 1], scale.w, here.w))}};
      const int64_t pixel = static_cast<int64_t>(tile.image * p.out_h + h) * p.out_w + w;
      store_global_streaming(reinterpret_cast<Bytes8*>(static_cast<T*>(p.y) + pixel * kOutputs) + member, four);
    }
  }
  static MVF_DEVICE float silu_of_half(float sum, float scale, float bias) {
    const float u = sum * scale + bias;
    return u + u * tanh_approximate(u);
  }
};

// Calls visit(K()) with the kernel of a call: high tiles where there are enough of them.
template <class T, bool kBytes, bool kPlanar, class Visit>
void with_stem_sm90_kernel(const StemSm90Params& p, int processors, const Visit& visit) {
  using High = StemSm90<T, kBytes, kPlanar, 8, true>;
  if (High::blocks(p) < 4 * static_cast<unsigned>(processors)) return visit(StemSm90<T, kBytes, kPlanar, 2, false>());
  const bool whole = p.out_w % kStemSm90Columns == 0 && p.out_h % 8 == 0 && p.height % 2 == 0;
  return whole ? visit(High()) : visit(StemSm90<T, kBytes, kPlanar, 8, false>());
}
template <class T, class Visit>
void with_stem_sm90_kernel(const StemSm90Params& p, int processors, const Visit& visit) {
  if (p.bytes) {
    return p.planar ? with_stem_sm90_kernel<T, true, true>(p, processors, visit)
                    : with_stem_sm90_kernel<T, true, false>(p, processors, visit);
  }
  return p.planar ? with_stem_sm90_kernel<T, false, true>(p, processors, visit)
                  : with_stem_sm90_kernel<T, false, false>(p, processors, visit);
}

}  // namespace mobilevit_fast::cuda
