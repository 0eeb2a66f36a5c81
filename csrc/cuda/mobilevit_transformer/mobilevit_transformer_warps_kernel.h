// The whole transformer stack in one kernel, for many images: a warp has the same tokens from the first convolution to
// the last.
//
// Their residual stream is the float32 accumulators of the warp's products. A lane's share of accumulators is its share
// of a left operand, so normed tokens, queries, weights of the softmax and hidden units never leave their lanes. Only
// keys and values, which other warps read, and the context, whose heads are no whole steps of the depth, go through
// shared memory, one head at a time. Weights come through a ring that all warps of the block read.
#pragma once

#include "cuda/mma/attention.h"
#include "mobilevit_transformer_units.h"

namespace mobilevit_fast::cuda {

// Up to 16 * kSteps features, heads of up to 8 * kHeadTiles; 16 * kTiles tokens of a warp.
template <class T, int kSteps, int kHeadTiles, int kTiles>
struct MobileViTTransformerWarps {
  using Params = MobileViTTransformerParams;

  static constexpr int kThreads = 256, kWarps = kThreads / kWarpSize, kRows = kWarps * kTiles * kMatrixRows;
  static constexpr int kHeadSteps = ceil_div(kHeadTiles, 2), kHeadPairs = ceil_div(3 * kHeadTiles, 2);
  // A head's context comes behind what was left of the heads before, less than a step.
  static constexpr int kContext = (kHeadSteps + 1) * kMatrixDepth;
  using Ring = UnitRing<kSteps, kWarps>;

  static MVF_HOST_DEVICE int sequence_tiles(const Params& p) { return ceil_div(p.tokens, kMatrixRows); }
  static MVF_HOST_DEVICE int sequences(const Params& p) { return kWarps * kTiles / sequence_tiles(p); }

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(ceil_div(p.all_sequences, sequences(p))); }
  static bool holds(const Params& p) {
    return ceil_div(p.features, kMatrixDepth) == kSteps && p.head_tiles == kHeadTiles && p.head_dim >= kMatrixDepth &&
           p.tokens <= kRows && p.layers > 0;
  }
  static size_t shared_bytes(const Params& p) {
    return shared_size<Bytes16>(Ring::kUnits * Ring::kPieces) + shared_size<T>(2 * kRows * p.head_pitch()) +
           shared_size<T>(kRows * row_pitch(kContext));
  }
  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    transformer_arrays<T>(p, false, visit);
  }

  static MVF_DEVICE void run(const Params& p) {
    const TransformerLayers layers{p};
    SharedMemory shared;
    Bytes16* ring = shared.template take<Bytes16>(Ring::kUnits * Ring::kPieces);
    T* keys = shared.template take<T>(2 * kRows * p.head_pitch());
    Warp warp(layers, ring, keys, shared.template take<T>(kRows * row_pitch(kContext)));
    warp.add_input();
    MVF_NO_UNROLL
    for (int layer = 0; layer < p.layers; ++layer) {
      warp.norm(layers.norm(2 * layer));
      warp.attend(layer);
      warp.norm(layers.norm(2 * layer + 1));
      warp.add_mlp(layer);
    }
    warp.norm(layers.norm(layers.last_step()));
    warp.store_output();
  }

 private:
  // What a lane knows of its warp, and what it does. Of a tile it has two rows, 8 apart.
  struct Warp {
    MVF_DEVICE Warp(const TransformerLayers& layers, Bytes16* ring, T* keys, T* context)
        : p(layers.p),
          layers_(layers),
          ring_(layers, ring),
          keys_(keys),
          context_(context + warp_index() * kTiles * kMatrixRows * row_pitch(kContext)) {}

    MVF_DEVICE int tile(int t) const { return warp_index() * kTiles + t; }
    MVF_DEVICE int sequence(int t) const { return tile(t) / sequence_tiles(p); }  // of the block
    MVF_DEVICE int token(int t, int half) const {
      return tile(t) % sequence_tiles(p) * kMatrixRows + half * 8 + lane_index() / 4;
    }
    MVF_DEVICE int64_t pixel(int t, int half) const {
      return p.pixel(block_index() * sequences(p) + sequence(t), token(t, half));
    }
    MVF_DEVICE bool exists(int t, int half) const {
      return sequence(t) < sequences(p) && block_index() * sequences(p) + sequence(t) < p.all_sequences &&
             token(t, half) < p.tokens;
    }
    static MVF_DEVICE int lane_column() { return lane_index() % 4 * 2; }

    // --- Products ---

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
      MVF_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) {
        const Float2 both = load_global(bias + n * 4 + lane_index() % 4);
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
        const int column = pair * kPairColumns + n * kMatrixColumns + lane_column();
        const Float2 bias = load_global(layer.bias + column / 2);
        const Float2 scale = layer.scale == nullptr ? Float2{1.0f, 1.0f} : load_global(layer.scale + column / 2);
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

    // --- The steps of the stack ---

    MVF_DEVICE void add_input() {
      MVF_NO_UNROLL
      for (int k = 0; k < ceil_div(p.channels, kMatrixDepth); ++k) {
        uint32_t inputs[kTiles][4];
        MVF_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          MVF_UNROLL
          for (int i = 0; i < 4; ++i) {
            const int column = k * kMatrixDepth + i / 2 * 8 + lane_column();
            inputs[t][i] = 0;
            if (column >= p.channels || !exists(t, i % 2)) continue;
            inputs[t][i] = load_global(words(static_cast<const T*>(p.x) + pixel(t, i % 2) * p.channels + column));
          }
        }
        add(inputs);
      }
      add_bias(layers_.in().bias);
    }

    MVF_DEVICE void norm(const Norm& norm) {
      float mean[kTiles][2], inverse[kTiles][2];
      const float width = static_cast<float>(norm.width);
      const bool whole = norm.width % kMatrixDepth == 0;  // else the last 8 features are zeros that do not count
      MVF_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        MVF_UNROLL
        for (int half = 0; half < 2; ++half) {
          float sum = 0.0f, squares = 0.0f;
          MVF_UNROLL
          for (int n = 0; n < 2 * kSteps; ++n) sum += x_[t][n][half * 2] + x_[t][n][half * 2 + 1];
          mean[t][half] = add_lanes(sum) / width;
          MVF_UNROLL
          for (int n = 0; n < 2 * kSteps; ++n) {
            if (n + 1 == 2 * kSteps && !whole) break;
            const float u = x_[t][n][half * 2] - mean[t][half], v = x_[t][n][half * 2 + 1] - mean[t][half];
            squares += u * u + v * v;
          }
          inverse[t][half] = reciprocal_root(add_lanes(squares) / width + norm.eps);
        }
      }
      MVF_UNROLL
      for (int n = 0; n < 2 * kSteps; ++n) {
        const Float2 w = load_global(norm.weight + n * 4 + lane_index() % 4),
                     b = load_global(norm.bias + n * 4 + lane_index() % 4);
        MVF_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          MVF_UNROLL
          for (int half = 0; half < 2; ++half) {
            const float u = x_[t][n][half * 2] - mean[t][half], v = x_[t][n][half * 2 + 1] - mean[t][half];
            const float r = inverse[t][half];
            normed_[t][n / 2][n % 2 * 2 + half] = pack<T>(u * r * w.x + b.x, v * r * w.y + b.y);
          }
        }
      }
    }
    static MVF_DEVICE float add_lanes(float sum) {
      sum += shuffle_xor(sum, 1);
      return sum + shuffle_xor(sum, 2);
    }

    MVF_DEVICE void attend(int layer) {
      const int pitch = row_pitch(kContext);
      int step = 0;
      MVF_NO_UNROLL
      for (int head = 0; head < p.heads; ++head) {
        attend_head(layer, head);
        MVF_NO_UNROLL
        for (; step < projected_steps(p, head + 1); ++step) {
          uint32_t inputs[kTiles][4];
          MVF_UNROLL
          for (int t = 0; t < kTiles; ++t) {
            load_matrix(inputs[t], matrix_row(context_ + t * kMatrixRows * pitch + step * kMatrixDepth % kContext,
                                              pitch, lane_index()));
          }
          add(inputs);
        }
      }
      add_bias(layers_.proj(layer).bias);
    }

    // A head's context, to its columns of `context_`, which repeat every kContext features.
    MVF_DEVICE void attend_head(int layer, int head) {
      uint32_t query[kTiles][kHeadSteps][4] = {};
      MVF_UNROLL
      for (int pair = 0; pair < kHeadPairs; ++pair) {
        outputs(layers_.qkv(layer), head * kHeadPairs + pair, [&](int t, int n, int half, int, float u, float v) {
          const int part = (2 * pair + n) / kHeadTiles, column = (2 * pair + n) % kHeadTiles;
          if (part == 0) {
            query[t][column / 2][column % 2 * 2 + half] = pack<T>(u, v);
          } else if (part <= 2) {
            // Those of rows that pad a sequence are zeros: a weight of 0 would not do away with what is not finite.
            T* target = keys_ + ((part - 1) * kRows + tile(t) * kMatrixRows + half * 8 + lane_index() / 4) *
                                    p.head_pitch() + column * kMatrixColumns + lane_column();
            store_shared(words(target), exists(t, half) ? pack<T>(u, v) : 0u);
          }
        });
      }
      sync_sequence();
      const int first = head * p.head_dim % kContext;
      MVF_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        if (sequence(t) >= sequences(p)) break;
        const T* keys = keys_ + sequence(t) * sequence_tiles(p) * kMatrixRows * p.head_pitch();
        Attention<T, kHeadSteps, 1> attention(p.head_dim, p.score_scale, query + t);
        attention.attend(keys, keys + kRows * p.head_pitch(), p.head_pitch(), p.tokens);
        T* context = context_ + t * kMatrixRows * row_pitch(kContext);
        attention.finish([&](int row, int column, float u, float v) {
          const int at = first + column < kContext ? first + column : first + column - kContext;
          store_shared(words(context + row * row_pitch(kContext) + at), pack<T>(u, v));
        });
      }
      sync_sequence();
    }
    // Where a warp has whole sequences it waits for itself alone.
    MVF_DEVICE void sync_sequence() const {
      if (kTiles % sequence_tiles(p) == 0) {
        sync_warp();
      } else {
        sync_block();
      }
    }

    MVF_DEVICE void add_mlp(int layer) {
      const Linear fc1 = layers_.fc1(layer);
      MVF_NO_UNROLL
      for (int pair = 0; pair < fc1.pairs; ++pair) {
        uint32_t units[kTiles][4];
        outputs(fc1, pair, [&](int t, int n, int half, int, float u, float v) {
          units[t][n * 2 + half] = pack<T>(activate(p.mlp_activation, u), activate(p.mlp_activation, v));
        });
        add(units);
      }
      add_bias(layers_.fc2(layer).bias);
    }

    MVF_DEVICE void store_output() {
      const Linear out = layers_.out();
      MVF_NO_UNROLL
      for (int pair = 0; pair < out.pairs; ++pair) {
        outputs(out, pair, [&](int t, int, int half, int column, float u, float v) {
          if (column >= p.outputs || !exists(t, half)) return;
          store_global(words(static_cast<T*>(p.y) + pixel(t, half) * p.outputs + column),
                       pack<T>(activate(p.out_activation, u), activate(p.out_activation, v)));
        });
      }
    }

    const Params& p;
    const TransformerLayers& layers_;
    Ring ring_;
    T *const keys_, *const context_;
    float x_[kTiles][2 * kSteps][4] = {};
    uint32_t normed_[kTiles][kSteps][4];
  };
};

}  // namespace mobilevit_fast::cuda
