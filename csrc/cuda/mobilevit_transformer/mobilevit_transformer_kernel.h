// The whole transformer stack of a MobileViT block in one kernel, for throughput: pixels in, pixels out, nothing else.
//
// A block has whole sequences from the first convolution to the last, since attention never leaves a sequence. The
// residual stream stays in registers: every warp owns the same rows and columns of it in all layers, the ones that its
// part of a linear layer gives. What linear layers take (the normed tokens, the context, the hidden units) is in shared
// memory, and so are the keys and values of some heads at a time. Weights come from the second-level cache.
#pragma once

#include "cuda/mma/attention.h"
#include "mobilevit_transformer_params.h"

namespace mobilevit_fast::cuda {

template <class T>
struct MobileViTTransformerStack {
  using Params = MobileViTTransformerParams;

  static constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
  // A warp has up to kRounds parts of the residual stream, each of 16 * kTiles tokens and up to 16 * kPairs features.
  static constexpr int kTiles = 2, kRows = kTiles * kMatrixRows, kPairs = 3, kRounds = 3;
  static constexpr int kMaxRows = 256;  // of several sequences
  // Where the residual has no part, more tokens share the weights that a warp loads.
  static constexpr int kWideTiles = 4, kWidePairs = 2;
  using Parts = Tasks<kWarps, kPairs>;

  // Rows of a sequence, and of all sequences of a block.
  static MVF_HOST_DEVICE int sequence_rows(const Params& p) { return round_up(p.tokens, kMatrixRows); }
  static MVF_HOST_DEVICE int rows_of(const Params& p, int sequences) {
    return round_up(sequences * sequence_rows(p), kWideTiles * kMatrixRows);
  }

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(ceil_div(p.all_sequences, p.sequences)); }
  static bool holds(const Params& p) {
    return Parts(rows_of(p, p.sequences) / kRows, ceil_div(p.features, kPairColumns)).rounds <= kRounds &&
           p.head_dim <= kMaxHeadDim && p.features <= kMaxFeatures;
  }

  // Elements of the array that holds, one after the other: the input; queries, then the context in their place, with
  // keys and values; hidden units; the output.
  static MVF_HOST_DEVICE int workspace(const Params& p) {
    const int attention = row_pitch(p.features) + p.head_group * 2 * p.head_pitch();
    int most = attention;
    for (const int other : {row_pitch(p.hidden), row_pitch(p.channels), row_pitch(p.outputs)}) {
      if (other > most) most = other;
    }
    return rows_of(p, p.sequences) * most;
  }
  static size_t shared_bytes(const Params& p) {
    return shared_size<T>(rows_of(p, p.sequences) * row_pitch(p.features)) + shared_size<T>(workspace(p));
  }
  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    transformer_arrays<T>(p, false, visit);
  }

  static MVF_DEVICE void run(const Params& p) {
    Block block(p);
    block.load_input();
    for (int step = 0;; ++step) {
      block.update(step);
      block.norm(step);
      if (block.layers_.begins_layer(step)) {
        block.attend(step / 2);
      } else {
        block.widen(step);
      }
      if (step == block.layers_.last_step()) break;
    }
    block.store_output();
  }

 private:
  // What a thread knows of its block, and what it does.
  struct Block {
    MVF_DEVICE explicit Block(const Params& params) : p(params), layers_{params}, pitch_(row_pitch(params.features)) {
      SharedMemory shared;
      tokens_ = shared.template take<T>(rows_of(p, p.sequences) * pitch_);
      workspace_ = shared.template take<T>(workspace(p));
      first_sequence_ = block_index() * p.sequences;
      const int left = p.all_sequences - first_sequence_;
      sequences_ = left < p.sequences ? left : p.sequences;
      rows_ = rows_of(p, sequences_);
    }

    // The pixel of a row in `image`, pixels of `channels` elements; nullptr where there is none.
    template <class Number>
    MVF_DEVICE Number* pixel(Number* image, int channels, int row) const {
      const int sequence = row / sequence_rows(p), token = row % sequence_rows(p);
      if (sequence >= sequences_ || token >= p.tokens) return nullptr;
      return image + p.pixel(first_sequence_ + sequence, token) * channels;
    }

    MVF_DEVICE void load_input() {
      const T* x = static_cast<const T*>(p.x);
      load_rows<T, kThreads>(workspace_, row_pitch(p.channels), rows_, p.channels, x,
                             [&](int row) { return pixel(x, p.channels, row); });
      commit_async();
      wait_async<0>();
      sync_block();
    }

    // The step's layer of `workspace_` is added to the residual; a copy goes to `tokens_`, to be normed.
    MVF_DEVICE void update(int step) {
      const Linear layer = layers_.update(step);
      const int input_pitch = row_pitch(layer.inputs);
      const Parts parts(rows_ / kRows, layer.pairs);
      MVF_UNROLL
      for (int round = 0; round < kRounds; ++round) {
        const int task = round * kWarps + warp_index();
        if (task >= parts.count) break;
        const int first_row = parts.row_group(task) * kRows;
        linear_part<T, kTiles, kPairs>(layer, workspace_ + first_row * input_pitch, input_pitch, parts.first_pair(task),
                                       parts.pairs_of(task), [&](int i, int n, int row, int column, float u, float v) {
                                         uint32_t& both = residual_[round][i][n];
                                         const Float2 before = unpack<T>(both);
                                         both = pack<T>(before.x + u, before.y + v);
                                         if (column >= p.features) return;
                                         store_shared(words(tokens_ + (first_row + row) * pitch_ + column), both);
                                       });
      }
      sync_block();
    }

    MVF_DEVICE void norm(int step) {
      layer_norm<T, kThreads>(layers_.norm(step), tokens_, tokens_, pitch_, rows_);
      sync_block();
    }

    MVF_DEVICE T* keys(int head_of_group, int part) const {  // and, as part 1, values
      return workspace_ + rows_ * pitch_ + (head_of_group * 2 + part) * rows_ * p.head_pitch();
    }

    // The context of all heads, to `workspace_`.
    MVF_DEVICE void attend(int layer) {
      for (int first_head = 0; first_head < p.heads; first_head += p.head_group) {
        const int heads = p.heads - first_head < p.head_group ? p.heads - first_head : p.head_group;
        project_heads(layer, first_head, heads);
        sync_block();
        with_head_steps(p.head_dim, [&](auto steps) {
          constexpr int kSteps = decltype(steps)::kSize;
          // Two tiles of queries share what is loaded, where both are of one sequence and registers suffice.
          if (kSteps <= 3 && sequence_rows(p) % kRows == 0) {
            attend_heads<kSteps, kSteps <= 3 ? kTiles : 1>(first_head, heads);
          } else {
            attend_heads<kSteps, 1>(first_head, heads);
          }
        });
        sync_block();
      }
    }

    // Keys and values of rows that pad a sequence are zeros: a weight of 0 would not do away with what is not finite.
    MVF_DEVICE void project_heads(int layer, int first_head, int heads) {
      const bool padded = sequence_rows(p) != p.tokens;
      linear<T, kWarps, kWideTiles, kWidePairs>(
          layers_.qkv(layer), tokens_, pitch_, rows_, first_head * p.head_pairs, heads * p.head_pairs,
          [&](int row, int column, float u, float v) {
            const int head = column / (p.head_pairs * kPairColumns);
            const int place = column - head * p.head_pairs * kPairColumns, part = place / p.head_width();
            const int at = place - part * p.head_width();
            if (part == 0) {
              if (at >= p.head_dim) return;
              store_shared(words(workspace_ + row * pitch_ + head * p.head_dim + at), pack<T>(u, v));
            } else if (part <= 2) {
              T* target = keys(head - first_head, part - 1) + row * p.head_pitch() + at;
              const bool token = !padded || row % sequence_rows(p) < p.tokens;
              store_shared(words(target), token ? pack<T>(u, v) : 0u);
            }
          });
    }

    // The context of a warp's tokens takes the place of their queries, which no other warp reads.
    template <int kSteps, int kQueryTiles>
    MVF_DEVICE void attend_heads(int first_head, int heads) {
      const int row_tiles = sequences_ * sequence_rows(p) / (kQueryTiles * kMatrixRows);
      for (int task = warp_index(); task < row_tiles * heads; task += kWarps) {
        const int row = task % row_tiles * kQueryTiles * kMatrixRows, head = task / row_tiles;
        T* query = workspace_ + row * pitch_ + (first_head + head) * p.head_dim;
        Attention<T, kSteps, kQueryTiles> attention(p.head_dim, p.score_scale, [&](int i, int column) {
          return load_shared(words(query + i * pitch_ + column));
        });
        const int begin = row / sequence_rows(p) * sequence_rows(p) * p.head_pitch();
        attention.attend(keys(head, 0) + begin, keys(head, 1) + begin, p.head_pitch(), p.tokens);
        sync_warp();  // all lanes have read their queries
        attention.finish([&](int i, int column, float u, float v) {
          store_shared(words(query + i * pitch_ + column), pack<T>(u, v));
        });
      }
    }

    // The hidden units of the MLP, or the output, to `workspace_`.
    MVF_DEVICE void widen(int step) {
      const auto [layer, width, activation] = layers_.widened(step);
      const int pitch = row_pitch(width);
      linear<T, kWarps, kWideTiles, kWidePairs>(
          layer, tokens_, pitch_, rows_, 0, layer.pairs,
          [&, width = width, activation = activation](int row, int column, float u, float v) {
            if (column >= width) return;
            store_shared(words(workspace_ + row * pitch + column),
                         pack<T>(activate(activation, u), activate(activation, v)));
          });
      sync_block();
    }

    MVF_DEVICE void store_output() {
      store_rows<T, kThreads>(workspace_, row_pitch(p.outputs), rows_, p.outputs,
                              [&](int row) { return pixel(static_cast<T*>(p.y), p.outputs, row); });
    }

    const Params& p;
    const TransformerLayers layers_;
    const int pitch_;
    T *tokens_, *workspace_;
    int first_sequence_, sequences_, rows_;
    uint32_t residual_[kRounds][2 * kTiles][2 * kPairs] = {};
  };
};

}  // namespace mobilevit_fast::cuda
