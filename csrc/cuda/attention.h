// Attention of 16 queries of one head, by one warp, over keys and values in shared memory: the softmax runs along
// (arXiv 2205.14135), scores and sums stay in registers.
#pragma once

#include "tokens.h"

namespace mobilevit_fast::cuda {

// Heads of at most 16 * kSteps features.
template <class T, int kSteps>
class Attention {
 public:
  static constexpr int kHeadDim = kSteps * kMatrixDepth;

  // word(row, column) has two neighbouring numbers of a query.
  template <class Word>
  MVF_DEVICE Attention(int head_dim, float scale, const Word& word)
      : head_dim_(head_dim), tiles_(ceil_div(head_dim, kMatrixColumns)), scale_(scale) {
    const int lane = lane_index();
    MVF_UNROLL
    for (int j = 0; j < kSteps; ++j) {
      MVF_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int column = j * kMatrixDepth + i / 2 * 8 + lane % 4 * 2;
        query_[j][i] = column < head_dim ? word(i % 2 * 8 + lane / 4, column) : 0u;
      }
    }
  }

  // `count` more keys and values, in rows that are finite up to the next multiple of 16.
  MVF_DEVICE void attend(const T* keys, const T* values, int pitch, int count) {
    constexpr int kTogether = 2;  // times 16 keys
    int first = 0;
    MVF_NO_UNROLL
    for (; first + (kTogether - 1) * kMatrixDepth < count; first += kTogether * kMatrixDepth) {
      step<kTogether>(keys + first * pitch, values + first * pitch, pitch, count - first);
    }
    MVF_NO_UNROLL
    for (; first < count; first += kMatrixDepth) {
      step<1>(keys + first * pitch, values + first * pitch, pitch, count - first);
    }
  }

  // Calls use(row, column, u, v) for every two neighbouring numbers that the lane has.
  template <class Use>
  MVF_DEVICE void finish(const Use& use) {
    const int lane = lane_index();
    MVF_UNROLL
    for (int half = 0; half < 2; ++half) {
      float total = total_[half];
      total += shuffle_xor(total, 1);
      total += shuffle_xor(total, 2);
      const float inverse = reciprocal_approximate(total);
      MVF_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) {
        const int column = n * kMatrixColumns + lane % 4 * 2;
        if (column >= head_dim_) break;
        use(half * 8 + lane / 4, column, sum_[n][half * 2] * inverse, sum_[n][half * 2 + 1] * inverse);
      }
    }
  }

 private:
  // The second half of 16 features, or the first one again where there is none: it meets zeros of the query, or sums
  // that nobody reads.
  MVF_DEVICE int beside(int pair) const { return 2 * pair + 1 < tiles_ ? lane_index() / 16 * kPieceNumbers : 0; }

  template <int kPairs>
  MVF_DEVICE void step(const T* keys, const T* values, int pitch, int count) {
    const int lane = lane_index(), row = lane % 16 * pitch;
    float scores[2 * kPairs][4] = {};  // (16 queries, 8 keys) each
    MVF_UNROLL
    for (int j = 0; j < kSteps; ++j) {
      if (2 * j >= tiles_) break;
      MVF_UNROLL
      for (int k = 0; k < kPairs; ++k) {
        uint32_t r[4];
        load_matrix(r, keys + k * kMatrixDepth * pitch + row + j * kMatrixDepth + beside(j));
        const uint32_t b[2][2] = {{r[0], r[2]}, {r[1], r[3]}};
        multiply_matrix<T>(scores[2 * k], query_[j], b[0]);
        multiply_matrix<T>(scores[2 * k + 1], query_[j], b[1]);
      }
    }
    if (count < kPairs * kMatrixDepth) hide<kPairs>(scores, count);
    weigh<kPairs>(scores);
    MVF_UNROLL
    for (int k = 0; k < kPairs; ++k) {
      const uint32_t weights[4] = {
          pack<T>(scores[2 * k][0], scores[2 * k][1]), pack<T>(scores[2 * k][2], scores[2 * k][3]),
          pack<T>(scores[2 * k + 1][0], scores[2 * k + 1][1]), pack<T>(scores[2 * k + 1][2], scores[2 * k + 1][3])};
      MVF_UNROLL
      for (int j = 0; j < kSteps; ++j) {
        if (2 * j >= tiles_) break;
        uint32_t r[4];
        load_matrix_transposed(r, values + k * kMatrixDepth * pitch + row + j * kMatrixDepth + beside(j));
        const uint32_t b[2][2] = {{r[0], r[1]}, {r[2], r[3]}};
        multiply_matrix<T>(sum_[2 * j], weights, b[0]);
        if (2 * j + 1 < tiles_) multiply_matrix<T>(sum_[2 * j + 1], weights, b[1]);
      }
    }
  }

  template <int kPairs>
  static MVF_DEVICE void hide(float (&scores)[2 * kPairs][4], int count) {
    MVF_UNROLL
    for (int t = 0; t < 2 * kPairs; ++t) {
      MVF_UNROLL
      for (int i = 0; i < 4; ++i) {
        if (t * kMatrixColumns + lane_index() % 4 * 2 + i % 2 >= count) scores[t][i] = kLeast;
      }
    }
  }

  // Scores become weights of the softmax relative to the largest score so far.
  template <int kPairs>
  MVF_DEVICE void weigh(float (&scores)[2 * kPairs][4]) {
    MVF_UNROLL
    for (int half = 0; half < 2; ++half) {
      float most = most_[half];
      MVF_UNROLL
      for (int t = 0; t < 2 * kPairs; ++t) {
        most = maximum(most, maximum(scores[t][half * 2], scores[t][half * 2 + 1]));
      }
      most = maximum(most, shuffle_xor(most, 1));
      most = maximum(most, shuffle_xor(most, 2));
      const float change = exp2_approximate((most_[half] - most) * scale_), subtracted = most * scale_;
      most_[half] = most;
      float total = total_[half] * change;
      MVF_UNROLL
      for (int t = 0; t < 2 * kPairs; ++t) {
        MVF_UNROLL
        for (int i = half * 2; i < half * 2 + 2; ++i) {
          scores[t][i] = exp2_approximate(scores[t][i] * scale_ - subtracted);
          total += scores[t][i];
        }
      }
      total_[half] = total;
      MVF_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) {
        if (n >= tiles_) break;
        sum_[n][half * 2] *= change, sum_[n][half * 2 + 1] *= change;
      }
    }
  }

  static constexpr float kLeast = -3.0e38f;  // its weight is 0, and differences of it are finite

  const int head_dim_, tiles_;
  const float scale_;
  uint32_t query_[kSteps][4];
  float sum_[2 * kSteps][4] = {};
  float most_[2] = {kLeast, kLeast}, total_[2] = {};
};

}  // namespace mobilevit_fast::cuda
