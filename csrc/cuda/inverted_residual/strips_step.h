// A step of strips_kernel.h: rows of input that a warp has in registers, chunk by chunk of 16 expanded channels to
// accumulators of rows of results.
#pragma once

#include <type_traits>

#include "cuda/addresses.h"
#include "strips.h"

namespace mobilevit_fast::cuda {

template <class T, int kChannels, int kExpanded, int kOutputs, int kStride, bool kMatrixLoads>
class StripStep {
 public:
  static constexpr bool kDiagonals = std::is_same_v<T, BFloat16>;  // the depthwise convolution is products of the warp
  static constexpr StripsChannels kSize{kChannels, kExpanded, kOutputs, kDiagonals};
  static constexpr int kRows = kRowsTogether * kStride;  // of input
  static constexpr int kSteps = kSize.steps(), kChunks = kSize.chunks(), kTiles = kSize.tiles(), kUsed = kOutputs / 8;
  static constexpr int kSums = kStride == 1 ? 2 : 1;  // with stride 2 a lane has one pixel of each of two rows

  using Input = uint32_t[kRows][kSteps][4];
  using Sums = float[kSums][kTiles][4];

  // What waits of a chunk, of a warp, and how much of it is a word.
  static constexpr int kWaitingBytes = kSize.waiting_bytes(kStride);
  using Waiting = std::conditional_t<kStride == 1 && !kMatrixLoads && !kDiagonals, Bytes16, Bytes8>;

  // Weights begin at `shared`, what waits of this warp at `waiting`.
  MVF_DEVICE StripStep(uint32_t shared, uint32_t waiting) {
    const int lane = thread_index() % kWarpSize, t = lane % 4;
    expand_ = shared + (kSize.expand() + lane) * 16, project_ = shared + (kSize.project() + lane) * 16;
    taps_ = shared + (kSize.taps() + t * 5) * 16, affine_ = shared + (kSize.affine() + t) * 16;
    if (kDiagonals) {  // lane 4 q + t has rows 2 t and 2 t + 1 of column q of a matrix
      const int q = lane / 4;
      const bool diagonal = t == q / 2;
      taps_ = shared + (diagonal ? kSize.taps() + q * 5 : kSize.zeros()) * 16;
      tap_step_ = diagonal ? kTapBytes : 0;
    }
    waiting_ = waiting + lane * static_cast<int>(sizeof(Waiting));
  }

  // At the top of a strip; whether the lane's pixels are the first, or the last, of their row.
  MVF_DEVICE void begin(bool is_first, bool is_last) {
    mask_left_ = is_first ? 0u : ~0u, mask_right_ = is_last ? 0u : ~0u;
    for (int i = 0; i < kChunks * kWaitingBytes; i += kWarpSize * static_cast<int>(sizeof(Waiting))) {
      store_shared_at(waiting_ + i, Waiting{});
    }
  }

  // Adds all channels of the rows of input. With kEdge neighbours may be outside of the image, and, with stride 1, the
  // rows whose masks `upper` and `lower` are zero. The chunks stay a loop: unrolled it was an eighth slower.
  template <bool kEdge>
  MVF_DEVICE void add(const Input& in, uint32_t upper, uint32_t lower, Sums& sums) const {
    MVF_NO_UNROLL
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      uint32_t weights[kSteps][4], taps[20];
      Operand operand;
      MVF_UNROLL
      for (int s = 0; s < kSteps; ++s) load_weights(expand_ + chunk * kExpandBytes + s * (kWarpSize * 16), weights[s]);
      if constexpr (kDiagonals) {
        MVF_UNROLL
        for (int g = 0; g < 2; ++g) {
          if constexpr (kStride == 1) {
            convolve_products<kEdge>(chunk, g, in, weights, upper, lower, operand);
          } else {
            convolve_half_products<kEdge>(chunk, g, in, weights, operand);
          }
        }
      } else if constexpr (kStride == 1) {
        float expanded[2][2][4];
        MVF_UNROLL
        for (int g = 0; g < 2; ++g) {
          MVF_UNROLL
          for (int r = 0; r < 2; ++r) expand(in[r], weights, g, expanded[g][r]);
        }
        load_taps(chunk, taps);
        MVF_UNROLL
        for (int g = 0; g < 2; ++g) convolve<kEdge>(chunk, g, expanded[g], taps + 9 * g, upper, lower, operand);
      } else {
        load_taps(chunk, taps);
        const uint32_t at = waiting_ + chunk * kWaitingBytes;
        Bytes8 waiting = load_shared_at<Bytes8>(at);
        MVF_UNROLL
        for (int g = 0; g < 2; ++g) {
          convolve_half<kEdge>(chunk, g, in, weights, taps + 9 * g, waiting.word[g], operand);
        }
        store_shared_at(at, waiting);
      }
      project(chunk, operand, sums);
    }
  }

 private:
  // Bytes of shared memory for all channels of a chunk.
  static constexpr int kExpandBytes = kSteps * kWarpSize * 16, kTapBytes = kSize.chunk_taps() * 16,
                       kAffineBytes = 16 * 16, kProjectBytes = kTiles * 16 * 16;
  using Operand = uint32_t[kSums][4];

  // SiLU(scale · x + bias) of two numbers, of {scale, scale, bias, bias}. Those are packed as halves: of half of a
  // number, u, SiLU is u + u · tanh(u).
  static MVF_DEVICE uint32_t silu(float x, float y, const Float4& affine) {
    const float u = x * affine.x + affine.z, v = y * affine.y + affine.w;
    return pack<T>(u + u * tanh_approximate(u), v + v * tanh_approximate(v));
  }
  static MVF_DEVICE uint32_t silu(uint32_t pair, const Float4& affine) {
    const Float2 f = unpack<Half>(pair);
    return silu(f.x, f.y, affine);
  }

  // A lane's share of two instructions' weights.
  static MVF_DEVICE void load_weights(uint32_t address, uint32_t (&w)[4]) {
    if constexpr (kMatrixLoads) {
      load_matrix_constant(w, address);
    } else {
      const Bytes16 v = load_shared_constant<Bytes16>(address);
      MVF_UNROLL
      for (int i = 0; i < 4; ++i) w[i] = v.word[i];
    }
  }

  MVF_DEVICE void load_taps(int chunk, uint32_t (&taps)[20]) const {
    MVF_UNROLL
    for (int i = 0; i < 5; ++i) {
      const Bytes16 v = load_shared_constant<Bytes16>(taps_ + chunk * kTapBytes + i * 16);
      MVF_UNROLL
      for (int j = 0; j < 4; ++j) taps[4 * i + j] = v.word[j];
    }
  }

  // The lane's share of the diagonals of eight channels: of columns 0 and 2 of every row of the window, then of column
  // 1 of rows 0, 1, 1 and 2. The last two words lie before those of the second eight channels.
  MVF_DEVICE void load_diagonals(int chunk, int g, uint32_t (&taps)[10]) const {
    const uint32_t at = taps_ + chunk * tap_step_ + g * 48;
    MVF_UNROLL
    for (int i = 0; i < 2; ++i) {
      const Bytes16 v = load_shared_constant<Bytes16>(at + i * 16);
      MVF_UNROLL
      for (int j = 0; j < 4; ++j) taps[4 * i + j] = v.word[j];
    }
    const Bytes8 v = load_shared_constant<Bytes8>(at + (g == 0 ? 32 : -8));
    taps[8] = v.word[0], taps[9] = v.word[1];
  }

  // Eight channels, the first or the second ones of a chunk, of a row.
  static MVF_DEVICE void expand(const uint32_t (&in)[kSteps][4], const uint32_t (&weights)[kSteps][4], int g,
                                float (&expanded)[4]) {
    MVF_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      const uint32_t b[2] = {weights[s][2 * g], weights[s][2 * g + 1]};
      if (s == 0) {
        begin_products<T>(expanded, in[s], b);
      } else {
        add_products<T>(expanded, in[s], b);
      }
    }
  }

  MVF_DEVICE void project(int chunk, const Operand& operand, Sums& sums) const {
    MVF_UNROLL
    for (int n = 0; n < kTiles; n += 2) {
      uint32_t w[4];
      load_weights(project_ + chunk * kProjectBytes + n * (16 * 16), w);
      const uint32_t b[2][2] = {{w[0], w[1]}, {w[2], w[3]}};
      MVF_UNROLL
      for (int r = 0; r < kSums; ++r) {
        add_products<T>(sums[r][n], operand[r], b[0]);
        if (n + 1 < kUsed) add_products<T>(sums[r][n + 1], operand[r], b[1]);
      }
    }
  }

  // Stride 1: of 8 channels, two rows of input to two rows of results, and what they add to the two after these.
  template <bool kEdge>
  MVF_DEVICE void convolve(int chunk, int g, const float (&expanded)[2][4], const uint32_t* taps, uint32_t upper,
                           uint32_t lower, Operand& operand) const {
    const uint32_t affine = affine_ + chunk * kAffineBytes + g * 64;
    const Float4 before = load_shared_constant<Float4>(affine), after = load_shared_constant<Float4>(affine + 128);
    uint32_t v[2][4];  // left neighbour, both pixels, right neighbour
    MVF_UNROLL
    for (int r = 0; r < 2; ++r) {
      v[r][1] = silu(expanded[r][0], expanded[r][1], before), v[r][2] = silu(expanded[r][2], expanded[r][3], before);
      if (kEdge) v[r][1] &= r == 0 ? upper : lower, v[r][2] &= r == 0 ? upper : lower;
      v[r][0] = shuffle_up(v[r][2], 4), v[r][3] = shuffle_down(v[r][1], 4);
      if (kEdge) v[r][0] &= mask_left_, v[r][3] &= mask_right_;
    }
    const uint32_t at = waiting_ + chunk * kWaitingBytes + g * (16 * kWarpSize);
    uint32_t sums[2][2], waiting[2][2];  // by row and pixel
    load_waiting(at, sums);
    MVF_UNROLL
    for (int m = 0; m < 2; ++m) {
      waiting[0][m] = multiply_half2(v[0][m], taps[0]), waiting[1][m] = multiply_half2(v[1][m], taps[0]);
      MVF_UNROLL
      for (int k = 0; k < 3; ++k) {
        sums[0][m] = fma_half2(v[0][m + k], taps[6 + k], sums[0][m]);
        sums[1][m] = fma_half2(v[0][m + k], taps[3 + k], sums[1][m]);
        if (k > 0) waiting[0][m] = fma_half2(v[0][m + k], taps[k], waiting[0][m]);
        if (k > 0) waiting[1][m] = fma_half2(v[1][m + k], taps[k], waiting[1][m]);
      }
      MVF_UNROLL
      for (int k = 0; k < 3; ++k) {
        sums[1][m] = fma_half2(v[1][m + k], taps[6 + k], sums[1][m]);
        waiting[0][m] = fma_half2(v[1][m + k], taps[3 + k], waiting[0][m]);
      }
    }
    store_waiting(at, waiting);
    MVF_UNROLL
    for (int r = 0; r < 2; ++r) {
      MVF_UNROLL
      for (int m = 0; m < 2; ++m) operand[r % kSums][2 * g + m] = silu(sums[r][m], after);
    }
  }

  static MVF_DEVICE void load_waiting(uint32_t address, uint32_t (&rows)[2][2]) {
    if constexpr (sizeof(Waiting) == sizeof(Bytes8)) {
      MVF_UNROLL
      for (int r = 0; r < 2; ++r) {
        const Bytes8 v = load_shared_at<Bytes8>(address + r * (8 * kWarpSize));
        rows[r][0] = v.word[0], rows[r][1] = v.word[1];
      }
    } else {
      const Bytes16 v = load_shared_at<Bytes16>(address);
      rows[0][0] = v.word[0], rows[0][1] = v.word[1], rows[1][0] = v.word[2], rows[1][1] = v.word[3];
    }
  }
  static MVF_DEVICE void store_waiting(uint32_t address, const uint32_t (&rows)[2][2]) {
    if constexpr (sizeof(Waiting) == sizeof(Bytes8)) {
      MVF_UNROLL
      for (int r = 0; r < 2; ++r) store_shared_at(address + r * (8 * kWarpSize), Bytes8{{rows[r][0], rows[r][1]}});
    } else {
      store_shared_at(address, Bytes16{{rows[0][0], rows[0][1], rows[1][0], rows[1][1]}});
    }
  }

  // Stride 2: four rows of input to two rows of results of half as many pixels.
  template <bool kEdge>
  MVF_DEVICE void convolve_half(int chunk, int g, const Input& in, const uint32_t (&weights)[kSteps][4],
                                const uint32_t* taps, uint32_t& waiting, Operand& operand) const {
    const uint32_t affine = affine_ + chunk * kAffineBytes + g * 64;
    const Float4 before = load_shared_constant<Float4>(affine), after = load_shared_constant<Float4>(affine + 128);
    uint32_t sums[3] = {waiting, 0, 0};
    MVF_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float expanded[4];
      expand(in[r], weights, g, expanded);
      uint32_t v[3];  // left neighbour, both pixels
      v[1] = silu(expanded[0], expanded[1], before), v[2] = silu(expanded[2], expanded[3], before);
      v[0] = shuffle_up(v[2], 4);
      if (kEdge) v[0] &= mask_left_;
      MVF_UNROLL
      for (int k = 0; k < 3; ++k) sums[r / 2] = fma_half2(v[k], taps[(r % 2 == 0 ? 3 : 6) + k], sums[r / 2]);
      if (r % 2 == 1) {
        sums[r / 2 + 1] = multiply_half2(v[0], taps[0]);
        MVF_UNROLL
        for (int k = 1; k < 3; ++k) sums[r / 2 + 1] = fma_half2(v[k], taps[k], sums[r / 2 + 1]);
      }
    }
    waiting = sums[2];
    MVF_UNROLL
    for (int r = 0; r < 2; ++r) operand[0][2 * g + r] = silu(sums[r], after);
  }

  // The same of each stride by diagonal matrices, in float32; what waits is expanded rows. Two taps are a product,
  // whose left operand has the pixels that they see: with stride 1 {of even pixels, of odd pixels} for each tap.
  template <bool kEdge>
  MVF_DEVICE void convolve_products(int chunk, int g, const Input& in, const uint32_t (&weights)[kSteps][4],
                                    uint32_t upper, uint32_t lower, Operand& operand) const {
    uint32_t taps[10];
    load_diagonals(chunk, g, taps);
    const uint32_t affine = affine_ + chunk * kAffineBytes + g * 64;
    const Float4 before = load_shared_constant<Float4>(affine), after = load_shared_constant<Float4>(affine + 128);
    const uint32_t at = waiting_ + chunk * kWaitingBytes + g * (16 * kWarpSize);
    float expanded[2][4], sums[2][4];
    MVF_UNROLL
    for (int r = 0; r < 2; ++r) expand(in[r], weights, g, expanded[r]);
    uint32_t rows[2][2][2];  // that waited and new ones, by row and pixel
    load_waiting(at, rows[0]);
    MVF_UNROLL
    for (int row = 0; row < 4; ++row) {
      uint32_t (&v)[2] = rows[row / 2][row % 2];
      if (row >= 2) {
        const float (&e)[4] = expanded[row % 2];
        v[0] = silu(e[0], e[1], before), v[1] = silu(e[2], e[3], before);
        if (kEdge) v[0] &= row == 2 ? upper : lower, v[1] &= row == 2 ? upper : lower;
      }
      uint32_t seen[4] = {shuffle_up(v[1], 4), v[0], v[1], shuffle_down(v[0], 4)};
      if (kEdge) seen[0] &= mask_left_, seen[3] &= mask_right_;
      MVF_UNROLL
      for (int r = 0; r < 2; ++r) {
        if (row >= r && row - r < 3) add_taps(row == r, sums[r % kSums], seen, taps + 2 * (row - r));
      }
      if (row == 1) {
        const uint32_t middle[4] = {rows[0][0][0], rows[0][0][1], v[0], v[1]};
        add_taps(false, sums[0], middle, taps + 6);
        add_shallow_products<T>(sums[1], v[0], v[1], taps[6]);
      }
    }
    store_waiting(at, rows[1]);
    const uint32_t middle[4] = {rows[1][0][0], rows[1][0][1], rows[1][1][0], rows[1][1][1]};
    add_shallow_products<T>(sums[0], rows[1][0][0], rows[1][0][1], taps[9]);
    add_taps(false, sums[1], middle, taps + 8);
    MVF_UNROLL
    for (int r = 0; r < 2; ++r) {
      MVF_UNROLL
      for (int m = 0; m < 2; ++m) operand[r % kSums][2 * g + m] = silu(sums[r][2 * m], sums[r][2 * m + 1], after);
    }
  }

  // With stride 2 {of the first row of results, of the second} for each tap.
  template <bool kEdge>
  MVF_DEVICE void convolve_half_products(int chunk, int g, const Input& in, const uint32_t (&weights)[kSteps][4],
                                         Operand& operand) const {
    uint32_t taps[10];
    load_diagonals(chunk, g, taps);
    const uint32_t affine = affine_ + chunk * kAffineBytes + g * 64;
    const Float4 before = load_shared_constant<Float4>(affine), after = load_shared_constant<Float4>(affine + 128);
    const uint32_t at = waiting_ + chunk * kWaitingBytes + g * (8 * kWarpSize);
    const Bytes8 old = load_shared_at<Bytes8>(at);
    uint32_t v[kRows + 1][3];  // left neighbour, both pixels
    v[0][1] = old.word[0], v[0][2] = old.word[1];
    MVF_UNROLL
    for (int r = 1; r <= kRows; ++r) {
      float expanded[4];
      expand(in[r - 1], weights, g, expanded);
      v[r][1] = silu(expanded[0], expanded[1], before), v[r][2] = silu(expanded[2], expanded[3], before);
    }
    MVF_UNROLL
    for (int r = 0; r <= kRows; ++r) {
      v[r][0] = shuffle_up(v[r][2], 4);
      if (kEdge) v[r][0] &= mask_left_;
    }
    store_shared_at(at, Bytes8{{v[kRows][1], v[kRows][2]}});
    float sums[4];
    MVF_UNROLL
    for (int row = 0; row < 3; ++row) {
      const uint32_t seen[4] = {v[row][0], v[row + 2][0], v[row][2], v[row + 2][2]};
      add_taps(row == 0, sums, seen, taps + 2 * row);
    }
    const uint32_t middle[4] = {v[0][1], v[2][1], v[1][1], v[3][1]};
    add_taps(false, sums, middle, taps + 6);
    add_shallow_products<T>(sums, v[2][1], v[4][1], taps[9]);
    MVF_UNROLL
    for (int r = 0; r < 2; ++r) operand[0][2 * g + r] = silu(sums[2 * r], sums[2 * r + 1], after);
  }

  static MVF_DEVICE void add_taps(bool first, float (&sums)[4], const uint32_t (&seen)[4], const uint32_t* taps) {
    const uint32_t both[2] = {taps[0], taps[1]};
    if (first) {
      begin_products<T>(sums, seen, both);
    } else {
      add_products<T>(sums, seen, both);
    }
  }

  uint32_t expand_, taps_, affine_, project_, waiting_;  // addresses in shared memory, of this lane
  int tap_step_ = 0;                                     // from chunk to chunk: other lanes load zeros
  uint32_t mask_left_, mask_right_;                      // zero where a pixel's neighbour is outside of its image
};

}  // namespace mobilevit_fast::cuda
