// What a block does with rows of tokens in shared memory: linear layers and layer norm.
#pragma once

#include "fragments.h"

namespace mobilevit_fast::cuda {

MVF_DEVICE int warp_index() { return static_cast<int>(static_cast<unsigned>(thread_index()) / kWarpSize); }
MVF_DEVICE int lane_index() { return thread_index() & (kWarpSize - 1); }

// A linear layer, packed: (inputs / 16, pairs, lanes). Without a scale it is 1.
struct Linear {
  const Bytes16* weight;
  const Float2 *scale, *bias;
  int inputs, pairs;

  MVF_HOST_DEVICE int weight_pieces() const { return ceil_div(inputs, kMatrixDepth) * pairs * kWarpSize; }
};

struct Norm {
  const Float2 *weight, *bias;
  int width;
  float eps;
};

// sum += rows · weights: 16 * kTiles tokens by `pairs` times 16 output channels. Where the last of the inputs fill half
// of a step, its other half, which meets weights of zero, is the first one again: any finite values do.
template <class T, int kTiles, int kPairs, bool kAllPairs>
MVF_DEVICE void multiply_steps(const Linear& layer, const T* rows, int pitch, int first_pair, int pairs,
                               float (&sum)[kTiles][2 * kPairs][4]) {
  const int steps = ceil_div(layer.inputs, kMatrixDepth), lane = lane_index();
  const Bytes16* weight = layer.weight + first_pair * kWarpSize + lane;
  const T* row = rows + lane % 16 * pitch;
  Bytes16 next[kPairs];
  const auto load_next = [&] {
    MVF_UNROLL
    for (int n = 0; n < kPairs; ++n) {
      if (kAllPairs || n < pairs) next[n] = load_global(weight + n * kWarpSize);
    }
    weight += layer.pairs * kWarpSize;
  };
  load_next();
  MVF_NO_UNROLL  // registers of several steps would not fit
  for (int step = 0; step < steps; ++step) {
    Bytes16 both[kPairs];
    MVF_UNROLL
    for (int n = 0; n < kPairs; ++n) both[n] = next[n];
    if (step + 1 < steps) load_next();  // under way while the matrix unit works
    const int beside = step * kMatrixDepth + kPieceNumbers < layer.inputs ? lane / 16 * kPieceNumbers : 0;
    uint32_t a[kTiles][4];
    MVF_UNROLL
    for (int i = 0; i < kTiles; ++i) {
      load_matrix(a[i], row + i * kMatrixRows * pitch + step * kMatrixDepth + beside);
    }
    MVF_UNROLL
    for (int n = 0; n < kPairs; ++n) {
      if (!kAllPairs && n >= pairs) break;
      const uint32_t b[2][2] = {{both[n].word[0], both[n].word[1]}, {both[n].word[2], both[n].word[3]}};
      MVF_UNROLL
      for (int i = 0; i < kTiles; ++i) {
        multiply_matrix<T>(sum[i][2 * n], a[i], b[0]);
        multiply_matrix<T>(sum[i][2 * n + 1], a[i], b[1]);
      }
    }
  }
}

// Most parts are whole ones, and need not ask for each pair.
template <class T, int kTiles, int kPairs>
MVF_DEVICE void multiply(const Linear& layer, const T* rows, int pitch, int first_pair, int pairs,
                         float (&sum)[kTiles][2 * kPairs][4]) {
  if (pairs == kPairs) {
    multiply_steps<T, kTiles, kPairs, true>(layer, rows, pitch, first_pair, pairs, sum);
  } else {
    multiply_steps<T, kTiles, kPairs, false>(layer, rows, pitch, first_pair, pairs, sum);
  }
}

// One warp's part of a linear layer. Calls use(i, n, row, column, u, v) for every two neighbouring output channels
// that the lane has: their i-th row of 2 * kTiles and n-th column of 2 * kPairs.
template <class T, int kTiles, int kPairs, class Use>
MVF_DEVICE void linear_part(const Linear& layer, const T* rows, int pitch, int first_pair, int pairs, const Use& use) {
  float sum[kTiles][2 * kPairs][4] = {};
  multiply<T, kTiles, kPairs>(layer, rows, pitch, first_pair, pairs, sum);
  const int lane = lane_index();
  MVF_UNROLL
  for (int n = 0; n < 2 * kPairs; ++n) {
    if (n >= 2 * pairs) break;
    const int column = first_pair * kPairColumns + n * kMatrixColumns + lane % 4 * 2;
    const Float2 bias = load_global(layer.bias + column / 2);
    const Float2 scale = layer.scale == nullptr ? Float2{1.0f, 1.0f} : load_global(layer.scale + column / 2);
    MVF_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      const float* both = sum[i / 2][n] + i % 2 * 2;
      use(i, n, i * 8 + lane / 4, column, both[0] * scale.x + bias.x, both[1] * scale.y + bias.y);
    }
  }
}

// How row_groups groups of rows and `pairs` pairs of columns are shared out among warps: every task has one group of
// rows and at most kPairs pairs, few enough that as many warps as possible are busy in the last round.
template <int kWarps, int kPairs>
struct Tasks {
  int row_groups, pairs, rounds, task_pairs, count;

  MVF_HOST_DEVICE Tasks(int groups, int all_pairs)
      : row_groups(groups),
        pairs(all_pairs),
        rounds(ceil_div(ceil_div(pairs, kPairs) * row_groups, kWarps)),
        task_pairs(ceil_div(pairs, rounds * kWarps / row_groups)),
        count(ceil_div(pairs, task_pairs) * row_groups) {}

  // Warps that are neighbours have the same columns, so that weights come to the first-level cache once for all.
  MVF_DEVICE int row_group(int task) const { return task % row_groups; }
  MVF_DEVICE int first_pair(int task) const { return task / row_groups * task_pairs; }
  MVF_DEVICE int pairs_of(int task) const {
    const int rest = pairs - first_pair(task);
    return rest < task_pairs ? rest : task_pairs;
  }
};

// A linear layer, or `pairs` of its columns, on all rows of the block. Calls use(row, column, u, v).
template <class T, int kWarps, int kTiles, int kPairs, class Use>
MVF_DEVICE void linear(const Linear& layer, const T* input, int pitch, int rows, int first_pair, int pairs,
                       const Use& use) {
  const Tasks<kWarps, kPairs> tasks(rows / (kTiles * kMatrixRows), pairs);
  MVF_NO_UNROLL
  for (int task = warp_index(); task < tasks.count; task += kWarps) {
    const int first_row = tasks.row_group(task) * kTiles * kMatrixRows;
    linear_part<T, kTiles, kPairs>(
        layer, input + first_row * pitch, pitch, first_pair + tasks.first_pair(task), tasks.pairs_of(task),
        [&](int, int, int row, int column, float u, float v) { use(first_row + row, column, u, v); });
  }
}

// A row is normed by kLanes lanes, of which each has up to kPieces times 16 bytes.
constexpr int kLanes = 16, kPieces = 2, kMaxNormed = kLanes * kPieces * kPieceNumbers;

// Layer norm of rows, a multiple of 16; `source` and `target` may be the same.
template <class T, int kThreads>
MVF_DEVICE void layer_norm(const Norm& norm, const T* source, T* target, int pitch, int rows) {
  const int member = thread_index() % kLanes, pieces = norm.width / kPieceNumbers;
  const auto add_lanes = [](float sum) {
    MVF_UNROLL
    for (int mask = 1; mask < kLanes; mask *= 2) sum += shuffle_xor(sum, mask);
    return sum;
  };
  MVF_NO_UNROLL
  for (int row = thread_index() / kLanes; row < rows; row += kThreads / kLanes) {
    const int at = row * pitch + member * kPieceNumbers;
    Bytes16 x[kPieces];
    float sum = 0.0f, squares = 0.0f;
    MVF_UNROLL
    for (int k = 0; k < kPieces; ++k) {
      if (k * kLanes + member >= pieces) break;
      x[k] = load_shared(reinterpret_cast<const Bytes16*>(source + at + k * kLanes * kPieceNumbers));
      MVF_UNROLL
      for (int i = 0; i < 4; ++i) {
        const Float2 value = unpack<T>(x[k].word[i]);
        sum += value.x + value.y;
      }
    }
    const float mean = add_lanes(sum) / static_cast<float>(norm.width);
    MVF_UNROLL
    for (int k = 0; k < kPieces; ++k) {
      if (k * kLanes + member >= pieces) break;
      MVF_UNROLL
      for (int i = 0; i < 4; ++i) {
        const Float2 value = unpack<T>(x[k].word[i]);
        const float u = value.x - mean, v = value.y - mean;
        squares += u * u + v * v;
      }
    }
    const float inverse = reciprocal_root(add_lanes(squares) / static_cast<float>(norm.width) + norm.eps);
    MVF_UNROLL
    for (int k = 0; k < kPieces; ++k) {
      if (k * kLanes + member >= pieces) break;
      MVF_UNROLL
      for (int i = 0; i < 4; ++i) {
        const Float2 value = unpack<T>(x[k].word[i]), w = load_global(norm.weight + (k * kLanes + member) * 4 + i),
                     b = load_global(norm.bias + (k * kLanes + member) * 4 + i);
        x[k].word[i] = pack<T>((value.x - mean) * inverse * w.x + b.x, (value.y - mean) * inverse * w.y + b.y);
      }
      store_shared(reinterpret_cast<Bytes16*>(target + at + k * kLanes * kPieceNumbers), x[k]);
    }
  }
}

// Rows of `width` elements to shared memory; from(row) is where one begins, nullptr where there is none: zeros.
template <class T, int kThreads, class From>
MVF_DEVICE void load_rows(T* target, int pitch, int rows, int width, const T* anywhere, const From& from) {
  const int pieces = width / kPieceNumbers;
  MVF_NO_UNROLL
  for (int i = thread_index(); i < rows * pieces; i += kThreads) {
    const int row = i / pieces, piece = i % pieces * kPieceNumbers;
    const T* source = from(row);
    const bool there = source != nullptr;
    copy_async(target + row * pitch + piece, there ? source + piece : anywhere, there);
  }
}

// The other way; rows that have no place are left out.
template <class T, int kThreads, class To>
MVF_DEVICE void store_rows(const T* source, int pitch, int rows, int width, const To& to) {
  const int pieces = width / kPieceNumbers;
  MVF_NO_UNROLL
  for (int i = thread_index(); i < rows * pieces; i += kThreads) {
    const int row = i / pieces, piece = i % pieces * kPieceNumbers;
    T* target = to(row);
    if (target == nullptr) continue;
    store_global(reinterpret_cast<Bytes16*>(target + piece),
                 load_shared(reinterpret_cast<const Bytes16*>(source + row * pitch + piece)));
  }
}

}  // namespace mobilevit_fast::cuda
