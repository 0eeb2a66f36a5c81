// Dense 3x3 convolution by Winograd's minimal filtering algorithm F(2x2, 3x3), Lavin and Gray, arXiv 1509.09308,
// section 4.1. Compiled once per instruction set, see simd.h.
//
// A tile of 2x2 outputs y sees 4x4 inputs d. With the 3x3 weights g, y = A^T [(G g G^T) * (B^T d B)] A, where * goes
// entry by entry: 16 multiplications in place of 36. Summed over the channels, each of the 16 entries is a matrix
// product of its own, of tiles by channels and channels by outputs.
#include "conv2d_groups.h"
#include "cpu/gemm/gemm.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

constexpr int64_t kTile = kWinogradTile, kSide = kWinogradSide, kEntries = kWinogradEntries;

// MACs after which an accumulator is put aside. Of an image of a few pixels PyTorch sums few, and in short sums.
int64_t sum_length(const Conv2dBiasActParams& p) {
  constexpr int64_t kFewPixels = 16;
  return p.out_h * p.out_w < kFewPixels ? 32 : 192;
}

// B^T d B for one vector of channels: d at rows[i] + j * step, the result at v + (i * kSide + j) * entry.
MVF_INLINE void transform_input(const float* const (&rows)[kSide], int64_t step, float* v, int64_t entry) {
  Float t[kSide][kSide];
  MVF_UNROLL
  for (int j = 0; j < kSide; ++j) {
    Float d[kSide];
    MVF_UNROLL
    for (int i = 0; i < kSide; ++i) d[i] = load_unaligned<Float>(rows[i] + j * step);
    t[0][j] = d[0] - d[2], t[1][j] = d[1] + d[2], t[2][j] = d[2] - d[1], t[3][j] = d[1] - d[3];
  }
  MVF_UNROLL
  for (int i = 0; i < kSide; ++i, v += kSide * entry) {
    store_vector(v, t[i][0] - t[i][2]);
    store_vector(v + entry, t[i][1] + t[i][2]);
    store_vector(v + 2 * entry, t[i][2] - t[i][1]);
    store_vector(v + 3 * entry, t[i][1] - t[i][3]);
  }
}

// y = A^T m A for one vector of outputs.
MVF_INLINE void transform_output(const float* m, int64_t entry, Float (&y)[kTile * kTile]) {
  Float t[kSide][kTile];
  MVF_UNROLL
  for (int i = 0; i < kSide; ++i, m += kSide * entry) {
    const Float m1 = load_unaligned<Float>(m + entry), m2 = load_unaligned<Float>(m + 2 * entry);
    t[i][0] = load_unaligned<Float>(m) + m1 + m2;
    t[i][1] = m1 - m2 - load_unaligned<Float>(m + 3 * entry);
  }
  MVF_UNROLL
  for (int j = 0; j < kTile; ++j) {
    y[j] = t[0][j] + t[1][j] + t[2][j];
    y[kTile + j] = t[1][j] - t[2][j] - t[3][j];
  }
}

// Memory of one task. Also counts it, without memory.
template <class T>
struct Group {
  const Conv2dBiasActParams& p;
  LineSource<T, float> source;
  int64_t channels, pitch, columns, rows;  // of inputs; between rows of `v`; of tiles, in both directions
  int64_t most, v_entry, m_entry;          // tiles of a group; between entries of `v` and `m`
  float *lines, *v, *m;
  const float** in;
  float** out;
  int64_t first = 0, tiles = 0, bytes;

  Group(const Conv2dBiasActParams& params, void* block) : p(params), source{p.x, p.x2} {
    channels = source.channels(), pitch = round_up(channels, kBlock);
    columns = ceil_div(p.out_w, kTile), rows = ceil_div(p.out_h, kTile);
    most = ceil_div(winograd_tiles(p), p.groups);
    // The entries of a tile must not all fall into one set of the cache.
    v_entry = most * pitch + kBlock, m_entry = most * kPanelBlocks * kBlock + kBlock;
    Arena arena(block);
    // The last vector of a pixel reaches into the next one.
    lines = arena.take<float>(sum_of(product_of(kSide, line_floats(smaller(most, columns))), kBlock));
    v = arena.take<float>(kEntries, v_entry);
    m = arena.take<float>(kEntries, m_entry);
    in = arena.take<const float*>(most);
    out = arena.take<float*>(most);
    bytes = arena.bytes();
  }

  int64_t line_floats(int64_t count) const { return (count * kTile + kSide - kTile) * channels; }

  // Tiles [begin, end) of a row of tiles, the first of which is number `tile` of the group.
  void transform_row(int64_t row, int64_t begin, int64_t end, int64_t tile, bool continued) {
    const int64_t image = row / rows, top = row % rows * kTile, left = begin * kTile - p.window.padding_w;
    const int64_t line = line_floats(end - begin);
    const float* origin[kSide];
    for (int64_t i = 0; i < kSide; ++i) {
      float* target = lines + (top + i) % kSide * line;
      origin[i] = target;
      if (continued && i < kSide - kTile) continue;
      source.copy(image, top + i - p.window.padding_h, left, line / channels, target);
    }
    for (int64_t i = 0; i < end - begin; ++i) {
      float* target = v + (tile + i) * pitch;
      for (int64_t c = 0; c < channels; c += kLanes) {
        const int64_t offset = i * kTile * channels + c;
        const float* const from[kSide] = {origin[0] + offset, origin[1] + offset, origin[2] + offset,
                                          origin[3] + offset};
        transform_input(from, channels, target + c, v_entry);
      }
    }
  }

  void prepare(int64_t group) {
    const int64_t count = winograd_tiles(p);
    first = part_begin(count, p.groups, group), tiles = part_begin(count, p.groups, group + 1) - first;
    int64_t previous = -1;  // the width of the row before
    for (int64_t tile = 0; tile < tiles;) {
      const int64_t row = (first + tile) / columns, begin = (first + tile) % columns;
      const int64_t end = smaller(columns, begin + tiles - tile);
      // Two of four lines are those of the row above.
      const bool continued = row % rows > 0 && previous == end - begin && begin == 0;
      transform_row(row, begin, end, tile, continued);
      previous = begin == 0 ? end : -1;
      tile += end - begin;
    }
  }

  void finish(int64_t channel, int64_t width) const {
    const Panels packed(p.packed, kEntries * channels, p.outputs);
    const int64_t valid = smaller(width, p.outputs - channel);
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t row = (first + i) / columns, column = (first + i) % columns * kTile;
      const int64_t top = row % rows * kTile, image = row / rows;
      T* y = (T*)p.y + ((image * p.out_h + top) * p.out_w + column) * p.outputs + channel;
      const bool right = column + 1 < p.out_w, below = top + 1 < p.out_h;
      const bool inside[] = {true, right, below, right && below};
      for (int64_t c = 0; c < valid; c += kLanes) {
        Float v[kTile * kTile];
        transform_output(m + i * width + c, m_entry, v);
        const Float factor = load_unaligned<Float>(packed.scale + channel + c);
        const Float offset = load_unaligned<Float>(packed.bias + channel + c);
        MVF_UNROLL
        for (int k = 0; k < kTile * kTile; ++k) v[k] = v[k] * factor + offset;
        activate<kTile * kTile>(p.activation, v);
        MVF_UNROLL
        for (int k = 0; k < kTile * kTile; ++k) {
          if (!inside[k]) continue;
          T* target = y + (k / kTile * p.out_w + k % kTile) * p.outputs + c;
          if (c + kLanes <= valid) {
            store_vector(target, v[k]);
          } else {
            store_first(target, v[k], valid - c);
          }
        }
      }
    }
  }

  void multiply(int64_t slice) const {
    const int64_t panels = panel_count(p.outputs);
    const int64_t end = part_begin(panels, p.slices, slice + 1);
    const Segment segment{0, 0};
    const PixelInput input{in, &segment, 1, channels, sum_length(p)};
    for (int64_t panel = part_begin(panels, p.slices, slice); panel < end; ++panel) {
      const int64_t channel = panel_begin(p.outputs, panel), width = panel_begin(p.outputs, panel + 1) - channel;
      const PixelOutput<float> output{out, nullptr, nullptr, nullptr, width, Activation::none};
      const float* b = p.packed + channel * kEntries * channels;
      for (int64_t entry = 0; entry < kEntries; ++entry, b += width * channels) {
        for (int64_t i = 0; i < tiles; ++i) {
          in[i] = v + entry * v_entry + i * pitch;
          out[i] = m + entry * m_entry + i * width;
        }
        const bool last = entry + 1 == kEntries && panel + 1 == end;
        const int64_t size = width * channels;
        multiply_panel<float>(input, tiles, b, width, b + size, last ? 0 : size, output, 0);
      }
      finish(channel, width);
    }
  }
};

}  // namespace

void conv2d_winograd(const Conv2dBiasActParams& p, int64_t begin, int64_t end) { run_groups<Group>(p, begin, end); }

}  // namespace mobilevit_fast::cpu::MVF_ISA
