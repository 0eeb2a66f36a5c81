// Atrous spatial pyramid pooling, from features to features. Compiled once per instruction set, see simd.h.
//
// A tile of pixels goes through all branches while its features are in the second-level cache; they never leave it. A
// window of three taps, as wide apart as half the image, mostly looks at padding: pixels that see the same taps are
// multiplied together, by these taps only. The mean of an image is the same for all of its pixels, and so is what the
// projection makes of it: it is a bias.
#include "aspp.h"
#include "cpu/gemm/gemm.h"
#include "cpu/gemm/pixels.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// x as float32 pixels whose channels lie side by side.
struct Pixels {
  const float* data;
  int64_t image_stride, row_stride, pixel_stride;

  explicit Pixels(const AsppParams& p) {
    const int64_t channels = p.x.channels, row = p.x.width * channels;
    if (p.pixels == nullptr) {
      data = (const float*)p.x.data;
      image_stride = p.x.image_stride, row_stride = p.x.row_stride, pixel_stride = p.x.pixel_stride;
    } else {
      data = p.pixels;
      image_stride = p.x.height * row, row_stride = row, pixel_stride = channels;
    }
  }
};

template <class T>
void copy_image(const AsppParams& p, int64_t image) {
  const int64_t row = p.x.width * p.x.channels;
  for (int64_t i = 0; i < p.x.height; ++i) {
    copy_pixels<T>((const T*)p.x.data + image * p.x.image_stride + i * p.x.row_stride, p.x.pixel_stride,
                   p.x.channel_stride, p.x.width, p.x.channels, p.pixels + (image * p.x.height + i) * row,
                   p.x.channels);
  }
}

// The means of an image, by way of those of its rows: rounding grows with the length of a sum.
void mean_pixel(const AsppParams& p, int64_t image, float* __restrict row, float* __restrict mean) {
  const Pixels x(p);
  const int64_t channels = p.x.channels;
  fill_zero(mean, channels);
  for (int64_t i = 0; i < p.x.height; ++i) {
    fill_zero(row, channels);
    const float* pixel = x.data + image * x.image_stride + i * x.row_stride;
    for (int64_t j = 0; j < p.x.width; ++j, pixel += x.pixel_stride) {
      for (int64_t c = 0; c < channels; ++c) row[c] += pixel[c];
    }
    for (int64_t c = 0; c < channels; ++c) mean[c] += row[c];
  }
  for (int64_t c = 0; c < channels; ++c) mean[c] /= (float)(p.x.height * p.x.width);
}

// Outputs [begin, end) of one direction, which see taps [first, last) of three inside the image.
struct Range {
  int64_t begin, end, first, last;
};

// Cuts outputs [begin, end) of `size` where the taps they see change; returns the number of ranges.
int64_t cut(int64_t begin, int64_t end, int64_t size, int64_t rate, Range (&ranges)[3]) {
  int64_t count = 0;
  for (int64_t stop; begin < end; begin = stop) {
    stop = end;
    if (begin < rate) stop = smaller(stop, rate);
    if (begin < size - rate) stop = smaller(stop, size - rate);
    ranges[count++] = {begin, stop, begin < rate ? 1 : 0, begin < size - rate ? 3 : 2};
  }
  return count;
}

// Pixels of a tile, `begin` and those after it in the lists of addresses, that see the same taps.
struct Block {
  int64_t begin, pixels, taps;
  Segment segments[kAtrousTaps];
};

// Memory of one task. Also counts it, without memory.
template <class T>
struct Tile {
  const AsppParams& p;
  Pixels x;
  int64_t image = 0, top = 0, bottom = 0, left = 0, right = 0;
  float* features;   // (pixels, aspp_width)
  const float** in;  // one address per pixel: of the centre of its window, of its features,
  float** out;
  T** target;  // and of y
  Block blocks[9];
  int64_t block_count = 0, bytes;

  Tile(const AsppParams& params, void* block) : p(params), x(params) {
    const int64_t most = ceil_div(p.x.height, p.tile_rows) * ceil_div(p.x.width, p.tile_columns);
    Arena arena(block);
    features = arena.take<float>(most, aspp_width(p));
    in = arena.take<const float*>(most);
    out = arena.take<float*>(most);
    target = arena.take<T*>(most);
    bytes = arena.bytes();
  }

  void begin(int64_t task) {
    const int64_t row = task / p.tile_columns % p.tile_rows, column = task % p.tile_columns;
    image = task / (p.tile_columns * p.tile_rows);
    top = part_begin(p.x.height, p.tile_rows, row), bottom = part_begin(p.x.height, p.tile_rows, row + 1);
    left = part_begin(p.x.width, p.tile_columns, column), right = part_begin(p.x.width, p.tile_columns, column + 1);
  }

  int64_t pixels() const { return (bottom - top) * (right - left); }

  // The blocks of a window of 3x3 taps `rate` apart, or of one tap, and their pixels in the order of the blocks. Their
  // features go to `channel` and those after it.
  void point(int64_t taps, int64_t rate, int64_t channel) {
    Range rows[3], columns[3];
    const int64_t row_count = cut(top, bottom, p.x.height, rate, rows);
    const int64_t column_count = cut(left, right, p.x.width, rate, columns);
    const float* origin = x.data + image * x.image_stride;
    int64_t pixel = 0;
    block_count = 0;
    for (int64_t i = 0; i < row_count * column_count; ++i) {
      const Range &row = rows[i / column_count], &column = columns[i % column_count];
      Block& block = blocks[block_count++];
      block.begin = pixel, block.taps = 0;
      for (int64_t kh = row.first; kh < row.last; ++kh) {
        for (int64_t kw = column.first; kw < column.last; ++kw) {
          if (taps == 1 && (kh != 1 || kw != 1)) continue;
          const int64_t offset = (kh - 1) * rate * x.row_stride + (kw - 1) * rate * x.pixel_stride;
          block.segments[block.taps++] = {offset, taps == 1 ? 0 : (kh * 3 + kw) * p.x.channels};
        }
      }
      for (int64_t h = row.begin; h < row.end; ++h) {
        for (int64_t w = column.begin; w < column.end; ++w, ++pixel) {
          in[pixel] = origin + h * x.row_stride + w * x.pixel_stride;
          out[pixel] = features + ((h - top) * (right - left) + w - left) * aspp_width(p) + channel;
        }
      }
      block.pixels = pixel - block.begin;
    }
  }

  // Panel by panel, so that the blocks share what the cache holds of the weights.
  void multiply(const Panels& packed, int64_t taps) const {
    const int64_t depth = taps * p.x.channels, panels = panel_count(p.features);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t first = panel_begin(p.features, panel), last = panel_begin(p.features, panel + 1);
      const int64_t following = panel + 1 < panels ? panel_begin(p.features, panel + 2) - last : 0;
      const float* weight = packed.weight + first * depth;
      const float* next = packed.weight + last * depth;
      for (int64_t i = 0; i < block_count; ++i) {
        const Block& block = blocks[i];
        const int64_t ahead = part_begin(following * depth, block_count, i);
        const int64_t floats = part_begin(following * depth, block_count, i + 1) - ahead;
        const PixelInput input{in + block.begin, block.segments, block.taps, p.x.channels};
        const PixelOutput<float> output{out + block.begin, nullptr,    packed.scale,
                                        packed.bias,       p.features, p.activation};
        multiply_panel<float>(input, block.pixels, weight, last - first, next + ahead, floats, output, first);
      }
    }
  }

  // All branches but that of the means; returns where the packed weights of that one begin.
  const float* expand() {
    const Panels pointwise(p.packed, p.x.channels, p.features);
    point(1, 0, 0);
    multiply(pointwise, 1);
    const float* packed = pointwise.end;
    for (int64_t i = 0; i < p.rate_count; ++i) {
      const Panels atrous(packed, kAtrousTaps * p.x.channels, p.features);
      point(kAtrousTaps, p.rates[i], (i + 1) * p.features);
      multiply(atrous, kAtrousTaps);
      packed = atrous.end;
    }
    return packed;
  }

  void project(const float* packed_projection) {
    const Panels packed(packed_projection, aspp_width(p), p.outputs);
    int64_t pixel = 0;
    for (int64_t h = top; h < bottom; ++h) {
      for (int64_t w = left; w < right; ++w, ++pixel) {
        in[pixel] = features + pixel * aspp_width(p);
        target[pixel] = (T*)p.y + ((image * p.x.height + h) * p.x.width + w) * p.outputs;
      }
    }
    const Segment segment{0, 0};
    const float* bias = p.image_bias + image * round_up(p.outputs, kBlock);
    const PixelOutput<T> output{target, nullptr, packed.scale, bias, p.outputs, p.activation};
    multiply_pixels<T>({in, &segment, 1, aspp_width(p)}, pixel, aspp_width(p), packed.weight, output, 0,
                       panel_count(p.outputs));
  }
};

template <class T>
void run(const AsppParams& p, int64_t begin, int64_t end) {
  const int64_t bytes = Tile<T>(p, nullptr).bytes;
  Tile<T> tile(p, thread_scratch(bytes));
  for (int64_t task = begin; task < end; ++task) {
    tile.begin(task);
    const float* pool = tile.expand();
    tile.project(pool + panel_floats(p.x.channels, p.features));
  }
}

// activation(scale · product + bias) of one pixel; what lies in the padding of the outputs is written too.
void multiply_one(const float* pixel, int64_t depth, int64_t outputs, const float* packed, Activation activation,
                  float* target) {
  const Segment segment{0, 0};
  const PixelOutput<float> output{&target, nullptr, nullptr, nullptr, round_up(outputs, kBlock), activation};
  multiply_pixels<float>({&pixel, &segment, 1, depth}, 1, depth, packed, output);
}

}  // namespace

void aspp_pool(const AsppParams& p, int64_t begin, int64_t end) {
  const int64_t channels = p.x.channels, width = aspp_width(p);
  const float* atrous = p.packed + panel_floats(channels, p.features);
  const float* pool = atrous + p.rate_count * panel_floats(kAtrousTaps * channels, p.features);
  const float* project = pool + panel_floats(channels, p.features) + panel_floats(width, p.outputs);
  float *row = nullptr, *mean = nullptr, *pooled = nullptr;
  const auto take = [&](void* block) {
    Arena arena(block);
    row = arena.take<float>(channels), mean = arena.take<float>(channels);
    pooled = arena.take<float>(round_up(p.features, kBlock));
    return arena.bytes();
  };
  take(thread_scratch(take(nullptr)));
  for (int64_t image = begin; image < end; ++image) {
    if (p.pixels != nullptr) (p.element == Element::float32 ? copy_image<float> : copy_image<BFloat16>)(p, image);
    mean_pixel(p, image, row, mean);
    multiply_one(mean, channels, p.features, pool, p.activation, pooled);
    multiply_one(pooled, p.features, p.outputs, project, Activation::none,
                 p.image_bias + image * round_up(p.outputs, kBlock));
  }
}

void aspp(const AsppParams& p, int64_t begin, int64_t end) {
  if (p.element == Element::float32) {
    run<float>(p, begin, end);
  } else {
    run<BFloat16>(p, begin, end);
  }
}

}  // namespace mobilevit_fast::cpu::MVF_ISA
