// Classifier head: expansion, activation and mean, then the linear layer. Compiled once per instruction set, see
// simd.h.
#include "classifier_head.h"
#include "cpu/gemm/gemm.h"
#include "cpu/gemm/pixels.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// Pixels expanded at a time, and images classified at a time.
constexpr int64_t kChunk = 64;
constexpr int64_t kPanelWidth = kPanelBlocks * kBlock;

// One panel of a packed matrix as a matrix of its own.
struct Panel {
  const float *weight, *scale, *bias;
  int64_t first, channels;
};

Panel panel_at(const float* packed, int64_t depth, int64_t outputs, int64_t index) {
  const Panels panels(packed, depth, outputs);
  const int64_t first = panel_begin(outputs, index);
  return {packed + first * depth, panels.scale + first, panels.bias + first, first,
          smaller(outputs, panel_begin(outputs, index + 1)) - first};
}

// Adds the sums over `count` pixels, kPanelWidth elements each, to `width` sums.
void add_pixels(const float* pixels, int64_t count, int64_t width, float* sums) {
  for (int64_t c = 0; c < width; c += kLanes) {
    Float sum[4] = {};
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
      MVF_UNROLL
      for (int j = 0; j < 4; ++j) sum[j] += load_unaligned<Float>(pixels + (i + j) * kPanelWidth + c);
    }
    for (; i < count; ++i) sum[0] += load_unaligned<Float>(pixels + i * kPanelWidth + c);
    store_vector(sums + c, load_unaligned<Float>(sums + c) + ((sum[0] + sum[1]) + (sum[2] + sum[3])));
  }
}

// Memory of one task. Also counts it, without memory.
template <class T>
struct Pool {
  const ClassifierHeadParams& p;
  bool direct;  // pixels of x can be read where they are
  Factor* input;
  float* expanded;
  const Word** in;
  float** out;
  int64_t bytes;

  Pool(const ClassifierHeadParams& params, void* block) : p(params) {
    direct = sizeof(T) == sizeof(Factor) && p.x.channel_stride == 1;
    Arena arena(block);
    input = arena.take<Factor>(direct ? 0 : kChunk, p.x.channels);
    expanded = arena.take<float>(kChunk * kPanelWidth);
    in = arena.take<const Word*>(kChunk);
    out = arena.take<float*>(kChunk);
    bytes = arena.bytes();
  }

  void read(int64_t image, int64_t first, int64_t count) const {
    const T* x = (const T*)p.x.data + image * p.x.image_stride;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = (first + i) / p.x.width, column = (first + i) % p.x.width;
      const T* pixel = x + row * p.x.row_stride + column * p.x.pixel_stride;
      in[i] = (const Word*)(direct ? (const Factor*)pixel : input + i * p.x.channels);
      if (!direct) copy_pixels<T>(pixel, 0, p.x.channel_stride, 1, p.x.channels, (Factor*)in[i], 0);
    }
  }

  // Panels [begin, end) of one image.
  void run(int64_t image, int64_t begin, int64_t end) const {
    const int64_t depth = p.x.channels / kWordFactors, pixels = p.x.height * p.x.width;
    float* pooled = p.pooled + image * round_up(p.expanded, kBlock);
    const int64_t first = panel_begin(p.expanded, begin), last = panel_begin(p.expanded, end);
    fill_zero(pooled + first, last - first);
    for (int64_t i = 0; i < kChunk; ++i) out[i] = expanded + i * kPanelWidth;
    const Segment segment{0, 0};
    for (int64_t pixel = 0; pixel < pixels; pixel += kChunk) {
      const int64_t count = smaller(kChunk, pixels - pixel);
      read(image, pixel, count);
      for (int64_t index = begin; index < end; ++index) {
        const Panel panel = panel_at(p.packed, depth, p.expanded, index);
        const PixelOutput<float> output{out,         nullptr, panel.scale, panel.bias, round_up(panel.channels, kBlock),
                                        p.activation};
        multiply_pixels<float>({in, &segment, 1, depth}, count, depth, panel.weight, output, 0, 1);
        add_pixels(expanded, count, output.channels, pooled + panel.first);
      }
    }
    for (int64_t c = first; c < last; ++c) pooled[c] /= (float)pixels;
  }
};

template <class T>
void pool(const ClassifierHeadParams& p, int64_t begin, int64_t end) {
  [[maybe_unused]] const TileScope tiles;
  const int64_t bytes = Pool<T>(p, nullptr).bytes, panels = panel_count(p.expanded);
  const Pool<T> task(p, thread_scratch(bytes));
  while (begin < end) {
    const int64_t image = begin / panels, stop = smaller(end, (image + 1) * panels);
    task.run(image, begin - image * panels, stop - image * panels);
    begin = stop;
  }
}

template <class T>
void classify_as(const ClassifierHeadParams& p, int64_t begin, int64_t end) {
  // A handful of logits, each one long sum: its rounding shows, where that of a million outputs only adds to others'.
  constexpr int64_t kShortSums = 32 / kWordFactors;
  [[maybe_unused]] const TileScope tiles;
  const int64_t depth = p.expanded / kWordFactors;
  const Panels packed(p.packed + panel_floats(p.x.channels / kWordFactors, p.expanded), depth, p.classes);
  const Word* in[kChunk];
  T* out[kChunk];
  Factor* rounded = kPairs ? (Factor*)thread_scratch(product_of(kChunk, p.expanded, sizeof(Factor))) : nullptr;
  const Segment segment{0, 0};
  const PixelOutput<T> output{out, nullptr, packed.scale, packed.bias, p.classes, Activation::none};
  for (int64_t image = 0; image < p.x.batch; image += kChunk) {
    const int64_t count = smaller(kChunk, p.x.batch - image);
    for (int64_t i = 0; i < count; ++i) {
      const float* means = p.pooled + (image + i) * round_up(p.expanded, kBlock);
      in[i] = (const Word*)(kPairs ? (const void*)(rounded + i * p.expanded) : means);
      if (kPairs) copy_pixels<float>(means, 0, 1, 1, p.expanded, rounded + i * p.expanded, 0);
      out[i] = (T*)p.y + (image + i) * p.classes;
    }
    const PixelInput input{in, &segment, 1, depth, kShortSums};
    multiply_pixels<T>(input, count, depth, packed.weight, output, begin, end);
  }
}

}  // namespace

void pool_expansion(const ClassifierHeadParams& p, int64_t begin, int64_t end) {
  if constexpr (!kPairs) {
    if (p.element == Element::float32) return pool<float>(p, begin, end);
  }
  pool<BFloat16>(p, begin, end);
}

void classify(const ClassifierHeadParams& p, int64_t begin, int64_t end) {
  if constexpr (!kPairs) {
    if (p.element == Element::float32) return classify_as<float>(p, begin, end);
  }
  classify_as<BFloat16>(p, begin, end);
}

}  // namespace mobilevit_fast::cpu::MVF_ISA
