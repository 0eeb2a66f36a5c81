// The transformer stack of a MobileViT block, pixels in, pixels out. Compiled once per instruction set, see simd.h.
//
// Unfold and fold are index arithmetic: a token is read from its pixel and written to it. A bundle of whole sequences
// goes through all layers while its tokens stay in the cache; where there are fewer sequences than threads, all blocks
// go through the stack layer by layer instead.
#if defined(MVF_TILES)
#include "cpu/attention/attention_tiles.h"
#else
#include "cpu/attention/attention.h"
#endif
#include "cpu/gemm/pixels.h"
#include "mobilevit_transformer.h"
#include "resize.h"
#include "sequences.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

constexpr int64_t kMaxGroup = 4;  // blocks that share one pass over the weights

struct Layer {
  const float* norm1;
  Linear qkv, proj;
  const float* norm2;
  Linear fc1, fc2;
};

template <class T>
struct Stack {
  const MobileViTTransformerParams& p;
  const Shape shape;
  const int64_t width, qkv_width, depth;
  const Heads heads;
  Blocks tokens;    // the residual stream, (width, kBlockTokens) a block
  Blocks kept[2];   // queries, keys, values; two for a run step by step
  Blocks sums;      // kMaxGroup blocks of them as their layers make them, where these are something else
  Operands normed;  // kMaxGroup blocks of (depth, kBlockTokens)
  Operands wide;    // of hidden units, or of the context
  Blocks edge;      // of pixels: (outputs, kBlockTokens), or operands in the same place
  float* rows;      // (width, kBlockTokens): the context before it becomes operands, where these are something else
  float* scores;

  Stack(const MobileViTTransformerParams& params, Arena& local, Arena& state, int64_t blocks, int buffers)
      : p(params),
        shape(params),
        width(p.width),
        qkv_width(3 * p.width),
        depth(p.width / kWordFactors),
        heads({p.num_heads, width / p.num_heads, shape.tokens, shape.per_block,
               1.0f / __builtin_sqrtf((float)(width / p.num_heads))}) {
    const int64_t wide_rows = row_depth(larger(p.hidden, width) / kWordFactors);
    const int64_t edge_rows = larger(row_depth(p.x.channels / kWordFactors), p.outputs);
    const int64_t normed_rows = row_depth(depth);
    tokens = {state.take<float>(blocks, width, kBlockTokens), width * kBlockTokens, blocks};
    kept[0] = {state.take<float>(blocks, heads.floats()), heads.floats(), blocks};
    kept[1] = kept[0];
    if (buffers > 1) kept[1].data = state.take<float>(blocks, heads.floats());
    const int64_t sums_floats = kHeadsAreSums ? 0 : qkv_width * kBlockTokens;
    sums = {local.take<float>(kMaxGroup, sums_floats), sums_floats, kMaxGroup};
    normed = {local.take<Word>(kMaxGroup, normed_rows, kBlockTokens), normed_rows * kBlockTokens, kMaxGroup};
    wide = {local.take<Word>(kMaxGroup, wide_rows, kBlockTokens), wide_rows * kBlockTokens, kMaxGroup};
    edge = {local.take<float>(kMaxGroup, edge_rows, kBlockTokens), edge_rows * kBlockTokens, kMaxGroup};
    rows = local.take<float>(kPairs ? width : 0, kBlockTokens);
    scores = local.take<float>(round_up(shape.tokens, kBlockTokens), kBlockTokens);
  }

  Linear in() const { return {p.packed, p.x.channels / kWordFactors, width}; }

  Layer layer(int64_t index) const {
    Layer l;
    const float* next = in().end() + index * (layer_end(0) - in().end());
    l.norm1 = next;
    l.qkv = {l.norm1 + 2 * width, depth, qkv_width};
    l.proj = {l.qkv.end(), depth, width};
    l.norm2 = l.proj.end();
    l.fc1 = {l.norm2 + 2 * width, depth, p.hidden};
    l.fc2 = {l.fc1.end(), p.hidden / kWordFactors, width};
    return l;
  }
  const float* layer_end(int64_t index) const {
    const int64_t floats = 4 * width + row_group_floats(depth, qkv_width, kRowGroups) +
                           row_group_floats(depth, width, kRowGroups) + row_group_floats(depth, p.hidden, kRowGroups) +
                           row_group_floats(p.hidden / kWordFactors, width, kRowGroups);
    return in().end() + (index + 1) * floats;
  }

  // Where channel `c` of a token goes among operands.
  static Factor& factor_at(Word* block, int64_t c, int64_t column) {
    return ((Factor*)(block + c / kWordFactors * kBlockTokens + column))[c % kWordFactors];
  }

  void gather(int64_t block, Word* target) const {
    for (int64_t column = 0; column < kBlockTokens; ++column) {
      const Place at = shape.place(block, column);
      const T* image = (const T*)p.x.data + at.image * p.x.image_stride;
      if (p.resized != nullptr) {
        const Sample row(at.row, p.grid_h * p.patch_h, p.x.height), col(at.column, p.grid_w * p.patch_w, p.x.width);
        for (int64_t c = 0; c < p.x.channels; ++c) {
          const T* channel = image + c * p.x.channel_stride;
          float value = 0;
          for (int i = 0; i < 2; ++i) {
            for (int j = 0; j < 2; ++j) {
              value += row.weight[i] * col.weight[j] *
                       to_float(channel[row.index[i] * p.x.row_stride + col.index[j] * p.x.pixel_stride]);
            }
          }
          assign(factor_at(target, c, column), value);
        }
        continue;
      }
      const T* pixel = image + at.row * p.x.row_stride + at.column * p.x.pixel_stride;
      if constexpr (sizeof(T) == sizeof(Factor)) {
        for (int64_t c = 0; c < p.x.channels; c += kWordFactors) {
          std::memcpy(&factor_at(target, c, column), pixel + c, sizeof(Word));
        }
      } else {
        for (int64_t c = 0; c < p.x.channels; ++c) assign(factor_at(target, c, column), to_float(pixel[c]));
      }
    }
  }

  void scatter(int64_t block, const float* source) const {
    const int64_t columns = shape.filled(block), height = p.grid_h * p.patch_h, row_width = p.grid_w * p.patch_w;
    for (int64_t column = 0; column < columns; ++column) {
      const Place at = shape.place(block, column);
      const int64_t pixel = ((at.image * height + at.row) * row_width + at.column) * p.outputs;
      if (p.resized != nullptr) {
        for (int64_t o = 0; o < p.outputs; ++o) p.resized[pixel + o] = source[o * kBlockTokens + column];
      } else {
        for (int64_t o = 0; o < p.outputs; ++o) assign(((T*)p.y)[pixel + o], source[o * kBlockTokens + column]);
      }
    }
  }

  void normalise(const Blocks& from, const float* parameters) const {
    for (int64_t b = 0; b < from.count; ++b) layer_norm(from[b], normed[b], parameters, width, p.eps);
  }

  // Tokens of blocks [block, block + count), which are blocks `local` and on of this stack's memory.
  void embed(int64_t block, int64_t local, int64_t count) const {
    const Operands pixels{(Word*)edge.data, edge.stride, count};
    for (int64_t b = 0; b < count; ++b) gather(block + b, pixels[b]);
    multiply_tokens<false>(in(), pixels, tokens.from(local, count), Activation::none);
  }

  void project_qkv(const Layer& l, int buffer, int64_t local, int64_t count) const {
    normalise(tokens.from(local, count), l.norm1);
    const Blocks target = kept[buffer].from(local, count);
    multiply_tokens<false>(l.qkv, normed.from(0, count), kHeadsAreSums ? target : sums, Activation::none);
    if (kHeadsAreSums) return;
    for (int64_t b = 0; b < count; ++b) keep_heads(heads, sums[b], target[b]);
  }

  // The context of one block. `local` counts from the first block of a sequence.
  void attention(int buffer, int64_t local, int64_t block, float* context) const {
    const Blocks& all = kept[buffer];
    const float *own = all[local], *first = all[local - block % shape.per_sequence];
    const int64_t filled_columns = shape.filled(block);
    if (shape.per_block > 1 && filled_columns < kBlockTokens) fill_zero(context, width * kBlockTokens);
    for (int64_t head = 0; head < p.num_heads; ++head) {
      float* out = context + head * heads.shape.channels * kBlockTokens;
      if (shape.per_block == 1) {
        attend<kBlockVectors>(heads, head, 0, own, first, all.stride, scores, out, kBlockTokens);
        continue;
      }
      for (int64_t i = 0; i * shape.tokens < filled_columns; ++i) {
        attend<1>(heads, head, i, own, first, all.stride, scores, out + i * shape.tokens, shape.tokens);
      }
    }
  }

  // The rest of a layer, behind its queries, keys and values.
  void finish_layer(const Layer& l, int buffer, int64_t block, int64_t local, int64_t count) const {
    const Blocks stream = tokens.from(local, count);
    const Operands context{wide.data, row_depth(depth) * kBlockTokens, count};
    for (int64_t b = 0; b < count; ++b) {
      attention(buffer, local + b, block + b, kPairs ? rows : (float*)context[b]);
      if (kPairs) join_rows(rows, context[b], width);
    }
    multiply_tokens<true>(l.proj, context, stream, Activation::none);
    normalise(stream, l.norm2);
    multiply_tokens<false>(l.fc1, normed.from(0, count), wide.from(0, count), p.mlp_activation);
    multiply_tokens<true>(l.fc2, wide.from(0, count), stream, Activation::none);
  }

  void unembed(int64_t block, int64_t local, int64_t count) const {
    const float* norm = layer_end(p.layers - 1);
    normalise(tokens.from(local, count), norm);
    const Linear out{norm + 2 * width, depth, p.outputs};
    if (p.resized == nullptr) {
      multiply_tokens<false>(out, normed.from(0, count), edge.from(0, count), p.out_activation);
    } else {
      multiply_sums(out, normed.from(0, count), edge.from(0, count));
    }
    for (int64_t b = 0; b < count; ++b) scatter(block + b, edge[b]);
  }
};

// Calls f(block, count) for groups of blocks.
template <class Function>
void for_groups(int64_t begin, int64_t end, Function f) {
  for (int64_t block = begin; block < end; block += kMaxGroup) f(block, smaller(kMaxGroup, end - block));
}

template <class T>
void bundles(const MobileViTTransformerParams& p, int64_t begin, int64_t end) {
  [[maybe_unused]] const TileScope tiles;
  Arena counted(nullptr);
  const Shape shape(p);
  Stack<T>(p, counted, counted, p.blocks_per_bundle, 1);
  Arena arena(thread_scratch(counted.bytes()));
  const Stack<T> stack(p, arena, arena, p.blocks_per_bundle, 1);
  for (int64_t bundle = begin; bundle < end; ++bundle) {
    const int64_t first = bundle * p.blocks_per_bundle, last = smaller(first + p.blocks_per_bundle, shape.blocks);
    for_groups(first, last, [&](int64_t b, int64_t n) { stack.embed(b, b - first, n); });
    for (int64_t i = 0; i < p.layers; ++i) {
      const Layer l = stack.layer(i);
      for_groups(first, last, [&](int64_t b, int64_t n) { stack.project_qkv(l, 0, b - first, n); });
      for_groups(first, last, [&](int64_t b, int64_t n) { stack.finish_layer(l, 0, b, b - first, n); });
    }
    for_groups(first, last, [&](int64_t b, int64_t n) { stack.unembed(b, b - first, n); });
  }
}

template <class T>
void step(const MobileViTTransformerParams& p, int64_t index, int64_t begin, int64_t end) {
  [[maybe_unused]] const TileScope tiles;
  Arena counted(nullptr), shared(p.shared);
  const Shape shape(p);
  Stack<T>(p, counted, shared, shape.blocks, 2);
  Arena arena(thread_scratch(counted.bytes())), memory(p.shared);
  const Stack<T> stack(p, arena, memory, shape.blocks, 2);
  for_groups(begin, end, [&](int64_t b, int64_t n) {
    if (index == 0) {
      stack.embed(b, b, n);
    } else {
      stack.finish_layer(stack.layer(index - 1), (index - 1) % 2, b, b, n);
    }
    if (index < p.layers) {
      stack.project_qkv(stack.layer(index), index % 2, b, n);
    } else {
      stack.unembed(b, b, n);
    }
  });
}

}  // namespace

Plan mobilevit_transformer_plan(const MobileViTTransformerParams& p) {
  Arena local(nullptr), shared(nullptr);
  const Shape shape(p);
  Stack<float>(p, local, shared, shape.blocks, 2);
  return {shape.blocks, shape.per_sequence, ceil_div(shared.bytes(), sizeof(float))};
}

void mobilevit_transformer_bundles(const MobileViTTransformerParams& p, int64_t begin, int64_t end) {
  if constexpr (!kPairs) {
    if (p.element == Element::float32) return bundles<float>(p, begin, end);
  }
  bundles<BFloat16>(p, begin, end);
}

void mobilevit_transformer_step(const MobileViTTransformerParams& p, int64_t index, int64_t begin, int64_t end) {
  if constexpr (!kPairs) {
    if (p.element == Element::float32) return step<float>(p, index, begin, end);
  }
  step<BFloat16>(p, index, begin, end);
}

// Rows [begin, end) of all images of y, from the sums on the grid of patches.
void mobilevit_transformer_resize(const MobileViTTransformerParams& p, int64_t begin, int64_t end) {
  if constexpr (!kPairs) {
    if (p.element == Element::float32) return resize_rows<float>(p, begin, end);
  }
  resize_rows<BFloat16>(p, begin, end);
}

}  // namespace mobilevit_fast::cpu::MVF_ISA
