// Attention of 16 or 32 queries of one head, by one warp, over keys and values in shared memory: the softmax runs along
// (arXiv 2205.14135), scores and accumulators stay in registers.
#pragma once

#include "tokens.h"

namespace mobilevit_fast::cuda {

// Calls visit(Size<s>()) with the kSteps that suit a head.
template <int kSteps = 1, class Visit>
MVF_DEVICE void with_head_steps(int head_dim, const Visit& visit) {
  if constexpr (kSteps * kMatrixDepth < kMaxHeadDim) {
    if (head_dim > kSteps * kMatrixDepth) return with_head_steps<kSteps + 1>(head_dim, visit);
  }
  visit(Size<kSteps>());
}

// Heads of 16 * kSteps features, or up to 15 fewer; 16 * kTiles queries, which meet 16 * kTogether keys at a time: as
// many as there are registers for.
template <class T, int kSteps, int kTiles, int kTogether = 2 / kTiles>
class Attention {
 public:
  static constexpr int kHeadDim = kSteps * kMatrixDepth;

  // word(row, column) has two neighbouring elements of a query.
  template <class Word>
  MVF_DEVICE Attention(int head_dim, float scale, const Word& word) : Attention(head_dim, scale) {
    const int lane = lane_index();
    MVF_UNROLL
    for (int q = 0; q < kTiles; ++q) {
      MVF_UNROLL
      for (int j = 0; j < kSteps; ++j) {
        MVF_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int row = q * kMatrixRows + i % 2 * 8 + lane / 4, column = j * kMatrixDepth + i / 2 * 8 + lane % 4 * 2;
          query_[q][j][i] = column < head_dim ? word(row, column) : 0u;
        }
      }
    }
  }

  // Left operands, zero beyond the head.
  MVF_DEVICE Attention(int head_dim, float scale, uint32_t (*query)[kSteps][4]) : Attention(head_dim, scale) {
    MVF_UNROLL
    for (int i = 0; i < kTiles * kSteps * 4; ++i) {
      query_[i / 4 / kSteps][i / 4 % kSteps][i % 4] = query[i / 4 / kSteps][i / 4 % kSteps][i % 4];
    }
  }

  // `count` more keys and values, in rows that are finite up to the next multiple of 16.
  MVF_DEVICE void attend(const T* keys, const T* values, int pitch, int count) {
    keys += lane_index() % 16 * pitch, values += lane_index() % 16 * pitch;
    MVF_NO_UNROLL
    for (; count > (kTogether - 1) * kMatrixDepth; count -= kTogether * kMatrixDepth) {
      step<kTogether>(keys, values, pitch, count);
      keys += kTogether * kMatrixDepth * pitch, values += kTogether * kMatrixDepth * pitch;
    }
    if (kTogether > 1 && count > 0) step<1>(keys, values, pitch, count);
  }

  // Calls use(row, column, u, v) for every two neighbouring elements that the lane has.
  template <class Use>
  MVF_DEVICE void finish(const Use& use) {
    const int lane = lane_index();
    MVF_UNROLL
    for (int row = 0; row < 2 * kTiles; ++row) {  // of the lane, 8 apart
      float total = total_[row];
      total += shuffle_xor(total, 1);
      total += shuffle_xor(total, 2);
      const float inverse = reciprocal_approximate(total);
      MVF_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) {
        const int column = n * kMatrixColumns + lane % 4 * 2;
        if (column >= head_dim_) break;
        const float* both = sum_[row / 2][n] + row % 2 * 2;
        use(row * 8 + lane / 4, column, both[0] * inverse, both[1] * inverse);
      }
    }
  }

 private:
  MVF_DEVICE Attention(int head_dim, float scale)
      : head_dim_(head_dim),
        lane_piece_(lane_index() / 16 * kPieceNumbers),
        last_piece_(head_dim > kHeadDim - kPieceNumbers ? lane_piece_ : 0),
        scale_(scale) {
    fill(most_, kLowest);
  }

  // The second half of 16 features, or the first one again where there is none: it meets zeros of the query, or sums
  // that nobody reads.
  MVF_DEVICE int beside(int pair) const { return pair + 1 < kSteps ? lane_piece_ : last_piece_; }

  template <int kPairs>
  MVF_DEVICE void step(const T* keys, const T* values, int pitch, int count) {
    float scores[kTiles][2 * kPairs][4] = {};  // (16 queries, 8 keys) each
    MVF_UNROLL
    for (int j = 0; j < kSteps; ++j) {
      MVF_UNROLL
      for (int k = 0; k < kPairs; ++k) {
        uint32_t r[4];
        load_matrix(r, keys + k * kMatrixDepth * pitch + j * kMatrixDepth + beside(j));
        const uint32_t b[2][2] = {{r[0], r[2]}, {r[1], r[3]}};
        MVF_UNROLL
        for (int q = 0; q < kTiles; ++q) {
          multiply_matrix<T>(scores[q][2 * k], query_[q][j], b[0]);
          multiply_matrix<T>(scores[q][2 * k + 1], query_[q][j], b[1]);
        }
      }
    }
    uint32_t weights[kTiles][kPairs][4];
    MVF_UNROLL
    for (int q = 0; q < kTiles; ++q) {
      if (count < kPairs * kMatrixDepth) hide<kPairs>(scores[q], count);
      weigh<kPairs>(scores[q], sum_[q], most_ + 2 * q, total_ + 2 * q);
      MVF_UNROLL
      for (int k = 0; k < kPairs; ++k) {
        MVF_UNROLL
        for (int i = 0; i < 4; ++i) {
          const float* both = scores[q][2 * k + i / 2] + i % 2 * 2;
          weights[q][k][i] = pack<T>(both[0], both[1]);
        }
      }
    }
    MVF_UNROLL
    for (int k = 0; k < kPairs; ++k) {
      MVF_UNROLL
      for (int j = 0; j < kSteps; ++j) {
        uint32_t r[4];
        load_matrix_transposed(r, values + k * kMatrixDepth * pitch + j * kMatrixDepth + beside(j));
        const uint32_t b[2][2] = {{r[0], r[1]}, {r[2], r[3]}};
        MVF_UNROLL
        for (int q = 0; q < kTiles; ++q) {
          multiply_matrix<T>(sum_[q][2 * j], weights[q][k], b[0]);
          multiply_matrix<T>(sum_[q][2 * j + 1], weights[q][k], b[1]);
        }
      }
    }
  }

  template <int kPairs>
  static MVF_DEVICE void hide(float (&scores)[2 * kPairs][4], int count) {
    MVF_UNROLL
    for (int t = 0; t < 2 * kPairs; ++t) {
      MVF_UNROLL
      for (int i = 0; i < 4; ++i) {
        if (t * kMatrixColumns + lane_index() % 4 * 2 + i % 2 >= count) scores[t][i] = kLowest;
      }
    }
  }

  // Scores become weights of the softmax relative to the largest score so far, of two rows of the lane.
  template <int kPairs>
  MVF_DEVICE void weigh(float (&scores)[2 * kPairs][4], float (&sum)[2 * kSteps][4], float* most_so_far,
                        float* total_so_far) const {
    MVF_UNROLL
    for (int half = 0; half < 2; ++half) {
      float most = most_so_far[half];
      MVF_UNROLL
      for (int t = 0; t < 2 * kPairs; ++t) {
        most = maximum(most, maximum(scores[t][half * 2], scores[t][half * 2 + 1]));
      }
      most = maximum(most, shuffle_xor(most, 1));
      most = maximum(most, shuffle_xor(most, 2));
      const float change = exp2_approximate((most_so_far[half] - most) * scale_);
      most_so_far[half] = most;
      float total = total_so_far[half] * change;
      MVF_UNROLL
      for (int t = 0; t < 2 * kPairs; ++t) {
        MVF_UNROLL
        for (int i = half * 2; i < half * 2 + 2; ++i) {
          // Not the difference of products: a rounded one may be smaller than the exact one by thousands.
          scores[t][i] = exp2_approximate((scores[t][i] - most) * scale_);
          total += scores[t][i];
        }
      }
      total_so_far[half] = total;
      MVF_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) {
        sum[n][half * 2] *= change, sum[n][half * 2 + 1] *= change;
      }
    }
  }

  static MVF_DEVICE void fill(float (&numbers)[2 * kTiles], float value) {
    MVF_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) numbers[i] = value;
  }

  static constexpr float kLowest = -3.0e38f;  // its weight is 0, and it is no infinity to subtract from another

  const int head_dim_, lane_piece_, last_piece_;  // where in 16 features the lane begins to read, and in the last ones
  const float scale_;
  uint32_t query_[kTiles][kSteps][4];
  float sum_[kTiles][2 * kSteps][4] = {};
  float most_[2 * kTiles], total_[2 * kTiles] = {};
};

}  // namespace mobilevit_fast::cuda
