// The transformer stack of a MobileViT block layer by layer, for few images or many tokens: a block has a tile of
// tokens of one sequence, and keys and values pass through global memory from one launch to the next.
//
// Launch 0 is the convolution in, layer norm and query, key and value of layer 0. Launch l is attention of the tile
// over its sequence, the rest of layer l - 1, and the beginning of layer l or, in the last launch, the convolution out.
#pragma once

#include "cuda/mma/attention.h"
#include "mobilevit_transformer_params.h"

namespace mobilevit_fast::cuda {

// A block has p.rows tokens, a multiple of 16 * kTiles, which a warp has at a time.
template <class T, int kTiles>
struct MobileViTTransformerLayer {
  using Params = MobileViTTransformerParams;

  static constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
  static constexpr int kPairs = 3;
  static constexpr int kStages = 2;  // of keys and values

  static MVF_HOST_DEVICE int tiles(const Params& p) { return ceil_div(p.tokens, p.rows); }
  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.all_sequences * tiles(p)); }
  static bool holds(const Params& p) {
    return p.rows % (kTiles * kMatrixRows) == 0 && p.head_group * (p.rows / kMatrixRows) <= kWarps &&
           p.keys % kMatrixDepth == 0 && p.features <= kMaxFeatures && p.head_dim <= kMaxHeadDim;
  }

  // Elements of keys or values of one head; of the array that holds input, then keys and values, hidden units, output.
  static MVF_HOST_DEVICE int part_numbers(const Params& p) { return p.keys * p.head_pitch(); }
  static MVF_HOST_DEVICE int workspace(const Params& p) {
    int most = kStages * p.head_group * 2 * part_numbers(p);
    for (const int width : {p.hidden, p.channels, p.outputs}) {
      if (p.rows * row_pitch(width) > most) most = p.rows * row_pitch(width);
    }
    return most;
  }
  static size_t shared_bytes(const Params& p) {
    return 2 * shared_size<T>(p.rows * row_pitch(p.features)) + shared_size<T>(workspace(p));
  }
  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    transformer_arrays<T>(p, true, visit);
  }

  static MVF_DEVICE void run(const Params& p) {
    Block block(p);
    if (p.launch == 0) {
      block.load_input();
    } else {
      block.attend();
    }
    for (int step = p.launch == 0 ? 0 : 2 * p.launch - 1; step <= 2 * p.launch; ++step) {
      block.update(step);
      block.norm(step);
      if (block.layers_.begins_layer(step)) {
        block.begin_layer(step / 2);
      } else {
        block.widen(step);
      }
    }
    if (p.launch == p.layers) block.store_output();
  }

 private:
  // What a thread knows of its block, and what it does.
  struct Block {
    MVF_DEVICE explicit Block(const Params& params) : p(params), layers_{params}, pitch_(row_pitch(params.features)) {
      SharedMemory shared;
      residual_ = shared.template take<T>(p.rows * pitch_);
      tokens_ = shared.template take<T>(p.rows * pitch_);
      workspace_ = shared.template take<T>(workspace(p));
      sequence_ = block_index() / tiles(p), first_token_ = block_index() % tiles(p) * p.rows;
    }

    MVF_DEVICE bool there(int row) const { return first_token_ + row < p.tokens; }

    template <class Number>
    MVF_DEVICE Number* pixel(Number* image, int channels, int row) const {
      return there(row) ? image + p.pixel(sequence_, first_token_ + row) * channels : nullptr;
    }
    template <class Number>
    MVF_DEVICE Number* residual(Number* all, int row) const {
      const int64_t token = static_cast<int64_t>(sequence_) * p.tokens + first_token_ + row;
      return there(row) ? all + token * p.features : nullptr;
    }

    template <class Use>
    MVF_DEVICE void apply(const Linear& layer, const T* input, int input_pitch, const Use& use) {
      linear<T, kWarps, kTiles, kPairs>(layer, input, input_pitch, p.rows, 0, layer.pairs, use);
      sync_block();
    }

    MVF_DEVICE void load_input() {
      const T* x = static_cast<const T*>(p.x);
      load_rows<T, kThreads>(workspace_, row_pitch(p.channels), p.rows, p.channels, x,
                             [&](int row) { return pixel(x, p.channels, row); });
      commit_async();
      wait_async<0>();
      sync_block();
    }

    // The step's layer is added to the residual. Its input is the context in `tokens_`, or else in `workspace_`.
    MVF_DEVICE void update(int step) {
      const Linear layer = layers_.update(step);
      const T* input = step % 2 == 1 ? tokens_ : workspace_;
      apply(layer, input, row_pitch(layer.inputs), [&](int row, int column, float u, float v) {
        if (column >= p.features) return;
        uint32_t* target = words(residual_ + row * pitch_ + column);
        const Float2 before = step == 0 ? Float2{0.0f, 0.0f} : unpack<T>(load_shared(target));
        store_shared(target, pack<T>(before.x + u, before.y + v));
      });
    }

    MVF_DEVICE void norm(int step) {
      layer_norm<T, kThreads>(layers_.norm(step), residual_, tokens_, pitch_, p.rows);
      sync_block();
    }

    // The hidden units of the MLP, or the output, to `workspace_`.
    MVF_DEVICE void widen(int step) {
      const auto [layer, width, activation] = layers_.widened(step);
      const int pitch = row_pitch(width);
      apply(layer, tokens_, pitch_, [&, width = width, activation = activation](int row, int column, float u, float v) {
        if (column >= width) return;
        store_shared(words(workspace_ + row * pitch + column),
                     pack<T>(activate(activation, u), activate(activation, v)));
      });
    }

    // What the next launch needs.
    MVF_DEVICE void begin_layer(int layer) {
      store_rows<T, kThreads>(residual_, pitch_, p.rows, p.features,
                              [&](int row) { return residual(static_cast<T*>(p.residual_out), row); });
      T* qkv = static_cast<T*>(p.qkv_out);
      apply(layers_.qkv(layer), tokens_, pitch_, [&](int row, int column, float u, float v) {
        const int head = column / (p.head_pairs * kPairColumns);
        const int place = column - head * p.head_pairs * kPairColumns, part = place / p.head_width();
        if (part > 2 || !there(row)) return;
        const int64_t target = p.qkv_at(part, sequence_, head, first_token_ + row);
        store_global(words(qkv + target + place - part * p.head_width()), pack<T>(u, v));
      });
    }

    MVF_DEVICE void store_output() {
      store_rows<T, kThreads>(workspace_, row_pitch(p.outputs), p.rows, p.outputs,
                              [&](int row) { return pixel(static_cast<T*>(p.y), p.outputs, row); });
    }

    // The residual of the tokens to `residual_`, their context to `tokens_`.
    MVF_DEVICE void attend() {
      const T* before = static_cast<const T*>(p.residual_in);
      load_rows<T, kThreads>(residual_, pitch_, p.rows, p.features, before,
                             [&](int row) { return residual(before, row); });
      commit_async();
      for (int head = 0; head < p.heads; head += p.head_group) {
        const int heads = p.heads - head < p.head_group ? p.heads - head : p.head_group;
        with_head_steps(p.head_dim, [&](auto steps) { attend_heads<decltype(steps)::kSize>(head, heads); });
      }
    }

    MVF_DEVICE T* keys(int stage, int head_of_group, int part) const {
      return workspace_ + ((stage * p.head_group + head_of_group) * 2 + part) * part_numbers(p);
    }

    // Keys and values of some heads, p.keys of them from `first` on, zeros beyond the sequence.
    MVF_DEVICE void load_keys(int first_head, int heads, int first, int stage) {
      const T* qkv = static_cast<const T*>(p.qkv_in);
      for (int i = 0; i < 2 * heads; ++i) {
        const T* source = qkv + p.qkv_at(1 + i % 2, sequence_, first_head + i / 2, first);
        load_rows<T, kThreads>(keys(stage, i / 2, i % 2), p.head_pitch(), p.keys, p.head_width(), qkv, [&](int row) {
          return first + row < p.tokens ? source + row * p.head_width() : nullptr;
        });
      }
      commit_async();
    }

    // The context of some heads, to their columns of `tokens_`: a warp has 16 tokens and one head.
    template <int kSteps>
    MVF_DEVICE void attend_heads(int first_head, int heads) {
      const int row_tiles = p.rows / kMatrixRows;
      const int first_row = warp_index() % row_tiles * kMatrixRows, head = warp_index() / row_tiles;
      const bool busy = head < heads;
      const T* query = static_cast<const T*>(p.qkv_in) +
                       (busy ? p.qkv_at(0, sequence_, first_head + head, first_token_ + first_row) : 0);
      Attention<T, kSteps, 1> attention(p.head_dim, p.score_scale, [&](int row, int column) {
        if (!busy || !there(first_row + row)) return 0u;
        return load_written(words(query + row * p.head_width() + column));
      });
      load_keys(first_head, heads, 0, 0);
      for (int first = 0, stage = 0; first < p.tokens; first += p.keys, stage ^= 1) {
        if (first + p.keys < p.tokens) {
          load_keys(first_head, heads, first + p.keys, stage ^ 1);
          wait_async<1>();
        } else {
          wait_async<0>();
        }
        sync_block();
        const int left = p.tokens - first;
        if (busy) {
          attention.attend(keys(stage, head, 0), keys(stage, head, 1), p.head_pitch(), left < p.keys ? left : p.keys);
        }
        sync_block();
      }
      if (busy) {
        T* context = tokens_ + first_row * pitch_ + (first_head + head) * p.head_dim;
        attention.finish([&](int row, int column, float u, float v) {
          store_shared(words(context + row * pitch_ + column), pack<T>(u, v));
        });
      }
      sync_block();
    }

    const Params& p;
    const TransformerLayers layers_;
    const int pitch_;
    T *residual_, *tokens_, *workspace_;
    int sequence_, first_token_;
  };
};

}  // namespace mobilevit_fast::cuda
