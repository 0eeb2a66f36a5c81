// The whole transformer stack in one kernel, for many images: a warp has the same tokens from the first convolution to
// the last.
//
// Their residual stream is the float32 accumulators of the warp's products. A lane's share of accumulators is its share
// of a left operand, so normed tokens, weights of the softmax and hidden units never leave their lanes. Through shared
// memory go keys and values, which other warps read, the context, whose heads are no whole steps of the depth, and
// queries, which would take registers meanwhile: one head at a time. Weights come through a ring that all warps read.
#pragma once

#include "cuda/mma/attention.h"
#include "mobilevit_transformer_units.h"

namespace mobilevit_fast::cuda {

// Up to 16 * kSteps features, heads of up to 8 * kHeadTiles.
template <class T, int kSteps, int kHeadTiles>
struct MobileViTTransformerWarps {
  using Params = MobileViTTransformerParams;

  static constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
  // Of a warp; more there are no registers for, and of one, weights would come twice as often for as many products.
  static constexpr int kTiles = 2;
  static constexpr int kRows = kWarps * kTiles * kMatrixRows;  // of a block
  static constexpr int kHeadSteps = ceil_div(kHeadTiles, 2), kHeadPairs = ceil_div(3 * kHeadTiles, 2);
  // Columns of the context, a power of two: a head's come behind what was left of the heads before, less than a step.
  static constexpr int kContext = kHeadSteps == 1 ? 32 : 64;
  static_assert((kHeadSteps + 1) * kMatrixDepth <= kContext);
  // Elements from row to row, an odd number of pieces: of keys and values, and of the context.
  static constexpr int kPitch = (kHeadTiles | 1) * kPieceNumbers, kContextPitch = kContext + kPieceNumbers;
  static constexpr bool kPaired = kSteps <= 6;  // tiles share the keys that they load: there are registers for it
  using Ring = UnitRing<kSteps, kWarps>;

  // A warp's tiles are of one sequence, unless a tile holds one.
  static MVF_HOST_DEVICE int sequence_tiles(const Params& p) {
    return p.tokens <= kMatrixRows ? 1 : round_up(ceil_div(p.tokens, kMatrixRows), kTiles);
  }
  static MVF_HOST_DEVICE int sequences(const Params& p) { return kWarps * kTiles / sequence_tiles(p); }

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(ceil_div(p.all_sequences, sequences(p))); }
  static bool holds(const Params& p) {
    return ceil_div(p.features, kMatrixDepth) == kSteps && p.head_tiles == kHeadTiles && p.head_dim >= kMatrixDepth &&
           p.tokens <= kRows;
  }
  static size_t shared_bytes(const Params& p) {
    return shared_size<Bytes16>(Ring::kUnits * Ring::kPieces) + shared_size<WeightUnit>(Ring::table_units(p)) +
           shared_size<int>(kRows + kWarps * kTiles) + shared_size<T>(2 * kRows * kPitch) +
           shared_size<T>(kRows * kContextPitch);
  }
  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    transformer_arrays<T>(p, false, visit);
  }

  static MVF_DEVICE void run(const Params& p) {
    const TransformerLayers layers{p};
    SharedMemory shared;
    Bytes16* ring = shared.template take<Bytes16>(Ring::kUnits * Ring::kPieces);
    int* places = shared.template take<int>(kRows + kWarps * kTiles);
    T* keys = shared.template take<T>(2 * kRows * kPitch);
    T* context = shared.template take<T>(kRows * kContextPitch);
    fill_places(p, places);
    Warp warp(layers, {layers, ring, shared.template take<WeightUnit>(Ring::table_units(p))}, places, keys, context);
    warp.add_input();
    MVF_NO_UNROLL
    for (int layer = 0; layer < p.layers; ++layer) {
      warp.norm(layers.norm(2 * layer));
      warp.attend(layer);
      warp.norm(layers.norm(2 * layer + 1));
      p.mlp_activation == Activation::silu ? warp.template add_mlp<true>(layer) : warp.template add_mlp<false>(layer);
    }
    warp.norm(layers.norm(layers.last_step()));
    warp.store_output();
  }

 private:
  // Of every row of the block its pixel, of every tile the first row of its sequence. Rows beyond a sequence's end are
  // copies of its last token, and marked: keys and values that count for nothing have to be finite where others are.
  static constexpr int kNowhere = -0x7fffffff - 1;
  static MVF_DEVICE void fill_places(const Params& p, int* places) {
    const int tiles = sequence_tiles(p), count = sequences(p);
    for (int row = thread_index(); row < kRows; row += kThreads) {
      const int tile = row / kMatrixRows, token = tile % tiles * kMatrixRows + row % kMatrixRows;
      const int sequence = block_index() * count + tile / tiles;
      const bool counts = tile < tiles * count;
      int place = kNowhere;
      if (counts && sequence < p.all_sequences) {
        const int pixel = static_cast<int>(p.pixel(sequence, token < p.tokens ? token : p.tokens - 1));
        place = token < p.tokens ? pixel : ~pixel;
      }
      store_shared(places + row, place);
      if (row % kMatrixRows == 0) store_shared(places + kRows + tile, counts ? (tile - tile % tiles) * kMatrixRows : 0);
    }
  }

  // What a lane knows of its warp, and what it does. Of a tile it has two rows, 8 apart.
  struct Warp {
    MVF_DEVICE Warp(const TransformerLayers& layers, const Ring& ring, const int* places, T* keys, T* context)
        : p(layers.p),
          layers_(layers),
          ring_(ring),
          places_(places),
          keys_(keys),
          context_(context + warp_index() * kTiles * kMatrixRows * kContextPitch) {}

    // A row of the block: the lane's of a tile.
    static MVF_DEVICE int row_of(int t, int half) {
      return (warp_index() * kTiles + t) * kMatrixRows + half * 8 + lane_row();
    }
    static MVF_DEVICE int context_column(int feature) { return feature & (kContext - 1); }
    MVF_DEVICE int pixel(int t, int half) const { return load_shared(places_ + row_of(t, half)); }
    static MVF_DEVICE int lane_row() { return thread_index() >> 2 & 7; }
    static MVF_DEVICE int lane_column() { return (thread_index() & 3) * 2; }

    // The stream += 16 inputs of a layer.
    MVF_DEVICE void add(const uint32_t (&inputs)[kTiles][4]) {
      const Bytes16* unit = ring_.take();
      MVF_UNROLL
      for (int q = 0; q < kSteps; ++q) {
        const Bytes16 both = load_shared(unit + q * kWarpSize);
        const uint32_t b[2][2] = {{both.word[0], both.word[1]}, {both.word[2], both.word[3]}};
        MVF_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          multiply_matrix<T>(x_[t][2 * q], inputs[t], b[0]);
          multiply_matrix<T>(x_[t][2 * q + 1], inputs[t], b[1]);
        }
      }
    }
    MVF_DEVICE void add_bias(const Float2* bias) {
      bias += lane_column() / 2;
      MVF_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) {
        const Float2 both = load_global(bias + n * 4);
        MVF_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          x_[t][n][0] += both.x, x_[t][n][1] += both.y, x_[t][n][2] += both.x, x_[t][n][3] += both.y;
        }
      }
    }
    // 16 outputs of the normed tokens. Calls use(t, n, half, column, u, v) for every two neighbours.
    template <class Use>
    MVF_DEVICE void outputs(const Linear& layer, int pair, const Use& use) {
      const Bytes16* unit = ring_.take();
      float sum[kTiles][2][4] = {};
      MVF_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        const Bytes16 both = load_shared(unit + s * kWarpSize);
        const uint32_t b[2][2] = {{both.word[0], both.word[1]}, {both.word[2], both.word[3]}};
        MVF_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          multiply_matrix<T>(sum[t][0], normed_[t][s], b[0]);
          multiply_matrix<T>(sum[t][1], normed_[t][s], b[1]);
        }
      }
      MVF_UNROLL
      for (int n = 0; n < 2; ++n) {
        const int column = pair * kPairColumns + n * kMatrixColumns + lane_column(), at = column >> 1;
        const Float2 bias = load_global(layer.bias + at);
        const Float2 scale = layer.scale == nullptr ? Float2{1.0f, 1.0f} : load_global(layer.scale + at);
        MVF_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          MVF_UNROLL
          for (int half = 0; half < 2; ++half) {
            const float* both = sum[t][n] + half * 2;
            use(t, n, half, column, both[0] * scale.x + bias.x, both[1] * scale.y + bias.y);
          }
        }
      }
    }

    MVF_DEVICE void add_input() {
      MVF_NO_UNROLL
      for (int k = 0; k < ceil_div(p.channels, kMatrixDepth); ++k) {
        uint32_t inputs[kTiles][4];
        MVF_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          MVF_UNROLL
          for (int i = 0; i < 4; ++i) {
            const int column = k * kMatrixDepth + i / 2 * 8 + lane_column();
            const int place = pixel(t, i % 2);
            const int64_t from = place < 0 ? ~place : place;
            inputs[t][i] = 0;
            if (column >= p.channels || place == kNowhere) continue;
            inputs[t][i] = load_written(words(static_cast<const T*>(p.x) + from * p.channels + column));
          }
        }
        add(inputs);
      }
      add_bias(layers_.in().bias);
    }

    MVF_DEVICE void norm(const Norm& norm) {
      float inverse[kTiles][2], shift[kTiles][2];
      const bool whole = norm.width == kSteps * kMatrixDepth;  // else the last 8 features are zeros that do not count
      const float share = whole ? 1.0f / (kSteps * kMatrixDepth) : 1.0f / (kSteps * kMatrixDepth - kPieceNumbers);
      MVF_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        MVF_UNROLL
        for (int half = 0; half < 2; ++half) {
          float sum = 0.0f, squares = 0.0f;
          MVF_UNROLL
          for (int n = 0; n < 2 * kSteps; ++n) sum += x_[t][n][half * 2] + x_[t][n][half * 2 + 1];
          const float mean = add_lanes(sum) * share;
          MVF_UNROLL
          for (int n = 0; n < 2 * kSteps; ++n) {
            if (n + 1 == 2 * kSteps && !whole) break;
            const float u = x_[t][n][half * 2] - mean, v = x_[t][n][half * 2 + 1] - mean;
            squares += u * u + v * v;
          }
          inverse[t][half] = reciprocal_root(add_lanes(squares) * share + norm.eps);
          shift[t][half] = -mean * inverse[t][half];
        }
      }
      const Float2 *weight = norm.weight + lane_column() / 2, *bias = norm.bias + lane_column() / 2;
      MVF_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) {
        const Float2 w = load_global(weight + n * 4), b = load_global(bias + n * 4);
        MVF_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          MVF_UNROLL
          for (int half = 0; half < 2; ++half) {
            const float u = x_[t][n][half * 2] * inverse[t][half] + shift[t][half],
                        v = x_[t][n][half * 2 + 1] * inverse[t][half] + shift[t][half];
            normed_[t][n / 2][n % 2 * 2 + half] = pack<T>(u * w.x + b.x, v * w.y + b.y);
          }
        }
      }
    }
    static MVF_DEVICE float add_lanes(float sum) {
      sum += shuffle_xor(sum, 1);
      return sum + shuffle_xor(sum, 2);
    }

    MVF_DEVICE void attend(int layer) {
      add_bias(layers_.proj(layer).bias);
      int step = 0;
      MVF_NO_UNROLL
      for (int head = 0; head < p.heads; ++head) {
        attend_head(layer, head);
        MVF_NO_UNROLL
        for (; step < Ring::Order::projected(p, head + 1); ++step) {
          uint32_t inputs[kTiles][4];
          MVF_UNROLL
          for (int t = 0; t < kTiles; ++t) {
            load_matrix(inputs[t],
                        matrix_row(context_ + t * kMatrixRows * kContextPitch + context_column(step * kMatrixDepth),
                                   kContextPitch, lane_index()));
          }
          add(inputs);
        }
      }
    }

    // A head's context, to its columns of `context_`, which repeat every kContext features. Its queries are there
    // before, in the steps that the heads before have left.
    MVF_DEVICE void attend_head(int layer, int head) {
      const int first = context_column(head * p.head_dim), free = round_up(first, kMatrixDepth);
      MVF_NO_UNROLL
      for (int pair = 0; pair < kHeadPairs; ++pair) {
        outputs(layers_.qkv(layer), head * kHeadPairs + pair, [&](int t, int n, int half, int, float u, float v) {
          const int part = (2 * pair + n) / kHeadTiles, column = (2 * pair + n) % kHeadTiles * kMatrixColumns;
          if (part == 0) {
            T* target = context_ + (t * kMatrixRows + half * 8 + lane_row()) * kContextPitch;
            store_shared(words(target + context_column(free + column) + lane_column()), pack<T>(u, v));
          } else if (part <= 2) {
            T* target = keys_ + ((part - 1) * kRows + row_of(t, half)) * kPitch;
            store_shared(words(target + column + lane_column()), pack<T>(u, v));
          }
        });
      }
      sync_sequence();
      if (kPaired && sequence_tiles(p) > 1) {
        attend_tiles<kPaired ? kTiles : 1>(0, first, free);
      } else {
        MVF_NO_UNROLL
        for (int t = 0; t < kTiles; ++t) attend_tiles<1>(t, first, free);
      }
      sync_sequence();
    }
    // The context of tiles of one sequence, from the t-th on.
    template <int kCount>
    MVF_DEVICE void attend_tiles(int t, int first, int free) {
      const T* keys = keys_ + load_shared(places_ + kRows + warp_index() * kTiles + t) * kPitch;
      T* context = context_ + t * kMatrixRows * kContextPitch;
      uint32_t query[kCount][kHeadSteps][4];
      MVF_UNROLL
      for (int i = 0; i < kCount; ++i) {
        MVF_UNROLL
        for (int j = 0; j < kHeadSteps; ++j) {
          const bool whole = kHeadTiles % 2 == 0 || j + 1 < kHeadSteps;
          load_matrix(query[i][j], context + (i * kMatrixRows + lane_index() % 16) * kContextPitch +
                                       context_column(free + j * kMatrixDepth) +
                                       (whole ? lane_index() / 16 * kPieceNumbers : 0));
          if (!whole) query[i][j][2] = query[i][j][3] = 0u;
        }
      }
      Attention<T, kHeadSteps, kCount, 1> attention(p.head_dim, p.score_scale, query);
      attention.attend(keys, keys + kRows * kPitch, kPitch, p.tokens);
      attention.finish([&](int row, int column, float u, float v) {
        store_shared(words(context + row * kContextPitch + context_column(first + column)), pack<T>(u, v));
      });
    }
    // Where a warp has whole sequences it waits for itself alone.
    MVF_DEVICE void sync_sequence() const {
      if (kTiles % sequence_tiles(p) == 0) {
        sync_warp();
      } else {
        sync_block();
      }
    }

    template <bool kSilu>
    MVF_DEVICE void add_mlp(int layer) {
      const Linear fc1 = layers_.fc1(layer);
      add_bias(layers_.fc2(layer).bias);
      MVF_NO_UNROLL
      for (int pair = 0; pair < fc1.pairs; ++pair) {
        uint32_t units[kTiles][4];
        outputs(fc1, pair, [&](int t, int n, int half, int, float u, float v) {
          units[t][n * 2 + half] =
              kSilu ? pack<T>(silu(u), silu(v)) : pack<T>(activate(p.mlp_activation, u), activate(p.mlp_activation, v));
        });
        add(units);
      }
    }

    MVF_DEVICE void store_output() {
      const Linear out = layers_.out();
      MVF_NO_UNROLL
      for (int pair = 0; pair < out.pairs; ++pair) {
        outputs(out, pair, [&](int t, int, int half, int column, float u, float v) {
          const int64_t to = pixel(t, half);
          if (column >= p.outputs || to < 0) return;
          store_global(words(static_cast<T*>(p.y) + to * p.outputs + column),
                       pack<T>(activate(p.out_activation, u), activate(p.out_activation, v)));
        });
      }
    }

    const Params& p;
    const TransformerLayers& layers_;
    Ring ring_;
    const int* const places_;
    T *const keys_, *const context_;
    float x_[kTiles][2 * kSteps][4] = {};
    uint32_t normed_[kTiles][kSteps][4];
  };
};

}  // namespace mobilevit_fast::cuda
