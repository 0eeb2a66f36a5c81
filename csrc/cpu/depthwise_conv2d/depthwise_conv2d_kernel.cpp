// Depthwise convolution over channels_last images. Compiled once per instruction set, see simd.h.
//
// A tile of kRows x kColumns output pixels times one vector of channels is accumulated in registers, so that an input
// vector is loaded once for all the outputs it contributes to. Channels are the inner loop: memory is walked in order.
#include "cpu/simd.h"
#include "depthwise_conv2d.h"

namespace mobilevit_fast::cpu::MVF_ISA {
namespace {

// What all tiles of one task share. Functions that store to memory take a copy of it first: a reference would have to
// be read again after every store.
template <class T>
struct Task {
  DepthwiseConv2dParams p;
  const T* image;  // first element of the input image
  T* out;          // first element of the output image
  int64_t channel_begin, channel_end;
};

MVF_INLINE bool inside(int64_t index, int64_t size) { return (uint64_t)index < (uint64_t)size; }

// Scale, bias, activation. The bias comes last: starting the sum with it would make every partial sum, and so its
// rounding error, larger.
template <class T, int kCount, bool kPartial>
MVF_INLINE void finish(const DepthwiseConv2dParams& p, int64_t channel, Float (&v)[kCount * Channels<T>::kVectors]) {
  constexpr int kVectors = Channels<T>::kVectors;
  Float scale[kVectors], bias[kVectors];
  load_float_channels<T, kPartial>(p.scale + channel, p.channels, scale);
  load_float_channels<T, kPartial>(p.bias + channel, p.channels, bias);
  MVF_UNROLL
  for (int i = 0; i < kCount * kVectors; ++i) v[i] = v[i] * scale[i % kVectors] + bias[i % kVectors];
  if (p.activation == Activation::silu) {
    silu_all<Channels<T>::kExact, kCount * kVectors>(v);
  } else if (p.activation == Activation::relu) {
    MVF_UNROLL
    for (int i = 0; i < kCount * kVectors; ++i) v[i] = relu(v[i]);
  }
}

// Adds input row `row` of a tile to all the sums it contributes to. `x` points at the first pixel of that row, `weight`
// at the first tap; `iw` is the column of that pixel in the image.
template <class T, int K, int S, int kRows, int kColumns, bool kChecked>
MVF_INLINE void add_input_row(const DepthwiseConv2dParams& p, const T* x, const T* weight, int64_t iw, int row,
                              Float (&sum)[kRows * kColumns * Channels<T>::kVectors]) {
  constexpr int kVectors = Channels<T>::kVectors;
  const T* taps[kRows];  // the row of the kernel that meets this row of the input, for each row of output
  MVF_UNROLL
  for (int r = 0; r < kRows; ++r) taps[r] = opaque(weight + (row - r * S) * p.kernel_w * p.channels);
  MVF_UNROLL
  for (int column = 0; column < (kColumns - 1) * S + K; ++column) {
    if (kChecked && !inside(iw + column, p.in_w)) continue;
    Float pixel[kVectors];
    Channels<T>::load(x + column * p.x_pixel_stride, pixel);
    // The tile to the right reads it next. Large images come from memory, in too many streams for the processor to see.
    if (column >= K - S) __builtin_prefetch(x + (column + kColumns * S) * p.x_pixel_stride);
    MVF_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int kh = row - r * S;
      if (kRows > 1 && (kh < 0 || kh >= K)) continue;
      MVF_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        const int kw = column - c * S;
        if (kw < 0 || kw >= K) continue;
        Float w[kVectors];
        Channels<T>::load(taps[r] + kw * p.channels, w);
        MVF_UNROLL
        for (int i = 0; i < kVectors; ++i) sum[(r * kColumns + c) * kVectors + i] += pixel[i] * w[i];
      }
    }
  }
}

// One tile of an undilated K x K kernel with stride S, for one vector of channels. `x` points at the tile's first input
// pixel, which is (ih, iw) of the image, `y` at its first output. kChecked: it may reach beyond the border of the
// input.
template <class T, int K, int S, int kRows, int kColumns, bool kChecked>
MVF_INLINE void dense_block(const DepthwiseConv2dParams& p, int64_t ih, int64_t iw, const T* x, T* y, int64_t channel) {
  constexpr int kVectors = Channels<T>::kVectors;
  constexpr int kInRows = (kRows - 1) * S + K;
  const T* weight = (const T*)p.weight + channel;
  Float sum[kRows * kColumns * kVectors] = {};
  auto add_row = [&](int row) __attribute__((always_inline)) {
    if (kChecked && !inside(ih + row, p.in_h)) return;
    add_input_row<T, K, S, kRows, kColumns, kChecked>(p, opaque(x + row * p.x_row_stride), weight, iw, row, sum);
  };
  if (kRows == 1) {
    for (int row = 0; row < kInRows; ++row) add_row(row);
  } else {
    MVF_UNROLL
    for (int row = 0; row < kInRows; ++row) add_row(row);
  }
  finish<T, kRows * kColumns, false>(p, channel, sum);
  MVF_UNROLL
  for (int r = 0; r < kRows; ++r) {
    T* y_row = opaque(y + r * p.out_w * p.channels);
    MVF_UNROLL
    for (int c = 0; c < kColumns; ++c) Channels<T>::store(sum + (r * kColumns + c) * kVectors, y_row + c * p.channels);
  }
}

template <class T, int K, int S, int kRows, int kColumns, bool kChecked>
void dense_tile(const Task<T>& shared, int64_t oh, int64_t ow) {
  constexpr int64_t kStep = Channels<T>::kChannels;
  const Task<T> task = shared;
  const DepthwiseConv2dParams& p = task.p;
  const int64_t ih = oh * S - p.padding_h, iw = ow * S - p.padding_w;
  // May point before the image where the tile reaches beyond its border; then nothing is read there.
  const T* x = task.image + (ih * p.x_row_stride + iw * p.x_pixel_stride);
  T* y = task.out + (oh * p.out_w + ow) * p.channels;
  for (int64_t next = task.channel_begin; next < task.channel_end; next += kStep) {
    const int64_t channel = next + kStep <= task.channel_end ? next : task.channel_end - kStep;  // the last may overlap
    dense_block<T, K, S, kRows, kColumns, kChecked>(p, ih, iw, x + channel, y + channel, channel);
  }
}

// Output columns of a tile. Narrower images take the general routine.
constexpr int kColumns = 4;

template <class T, int K, int S, int kRows>
void dense_rows(const Task<T>& task, int64_t oh) {
  constexpr int kInRows = (kRows - 1) * S + K;
  constexpr int kInColumns = (kColumns - 1) * S + K;
  const DepthwiseConv2dParams& p = task.p;
  const int64_t ih = oh * S - p.padding_h;
  const bool rows_inside = ih >= 0 && ih + kInRows <= p.in_h;
  for (int64_t start = 0; start < p.out_w; start += kColumns) {
    const int64_t ow = start + kColumns <= p.out_w ? start : p.out_w - kColumns;  // the last tile overlaps
    const int64_t iw = ow * S - p.padding_w;
    if (rows_inside && iw >= 0 && iw + kInColumns <= p.in_w) {
      dense_tile<T, K, S, kRows, kColumns, false>(task, oh, ow);
    } else {
      dense_tile<T, K, S, kRows, kColumns, true>(task, oh, ow);
    }
  }
}

template <class T, int K, int S>
void dense(const Task<T>& task, int64_t row_begin, int64_t row_end) {
  constexpr int kRows = K == 3 ? 2 : 1;  // two rows of a larger kernel would not fit the registers
  int64_t oh = row_begin;
  for (; oh + kRows <= row_end; oh += kRows) dense_rows<T, K, S, kRows>(task, oh);
  for (; oh < row_end; ++oh) dense_rows<T, K, S, 1>(task, oh);
}

// Any kernel, stride and dilation. kPartial: there are fewer channels than a vector holds.
template <class T, int kTileColumns, bool kPartial>
MVF_INLINE void general_block(const Task<T>& task, int64_t oh, int64_t ow, int64_t channel) {
  constexpr int kVectors = Channels<T>::kVectors;
  const DepthwiseConv2dParams& p = task.p;
  Float sum[kTileColumns * kVectors] = {};
  for (int64_t kh = 0; kh < p.kernel_h; ++kh) {
    const int64_t ih = oh * p.stride_h - p.padding_h + kh * p.dilation_h;
    if (!inside(ih, p.in_h)) continue;
    for (int64_t kw = 0; kw < p.kernel_w; ++kw) {
      const T* weight = (const T*)p.weight + ((kh * p.kernel_w + kw) * p.channels + channel);
      Float w[kVectors];
      load_channels<T, kPartial>(weight, p.channels, w);
      MVF_UNROLL
      for (int c = 0; c < kTileColumns; ++c) {
        const int64_t iw = (ow + c) * p.stride_w - p.padding_w + kw * p.dilation_w;
        if (!inside(iw, p.in_w)) continue;
        Float x[kVectors];
        load_channels<T, kPartial>(task.image + (ih * p.x_row_stride + iw * p.x_pixel_stride + channel), p.channels, x);
        MVF_UNROLL
        for (int i = 0; i < kVectors; ++i) sum[c * kVectors + i] += x[i] * w[i];
      }
    }
  }
  finish<T, kTileColumns, kPartial>(p, channel, sum);
  MVF_UNROLL
  for (int c = 0; c < kTileColumns; ++c) {
    store_channels<T, kPartial>(sum + c * kVectors, p.channels,
                                task.out + (oh * p.out_w + ow + c) * p.channels + channel);
  }
}

template <class T, int kTileColumns>
void general_tile(const Task<T>& shared, int64_t oh, int64_t ow) {
  const Task<T> task = shared;
  constexpr int64_t kStep = Channels<T>::kChannels;
  if (task.p.channels < kStep) {
    general_block<T, kTileColumns, true>(task, oh, ow, 0);
    return;
  }
  for (int64_t next = task.channel_begin; next < task.channel_end; next += kStep) {
    const int64_t channel = next + kStep <= task.channel_end ? next : task.channel_end - kStep;
    general_block<T, kTileColumns, false>(task, oh, ow, channel);
  }
}

template <class T>
void general(const Task<T>& task, int64_t row_begin, int64_t row_end) {
  for (int64_t oh = row_begin; oh < row_end; ++oh) {
    int64_t ow = 0;
    for (; ow + kColumns <= task.p.out_w; ow += kColumns) general_tile<T, kColumns>(task, oh, ow);
    for (; ow < task.p.out_w; ++ow) general_tile<T, 1>(task, oh, ow);
  }
}

template <class T>
using Routine = void (*)(const Task<T>&, int64_t, int64_t);

template <class T>
Routine<T> choose_routine(const DepthwiseConv2dParams& p) {
  const bool square = p.kernel_h == p.kernel_w && p.stride_h == p.stride_w && p.stride_h <= 2;
  const bool dilated = p.dilation_h != 1 || p.dilation_w != 1;
  if (!square || dilated || p.out_w < kColumns || p.channels < Channels<T>::kChannels) return general<T>;
  const bool strided = p.stride_h == 2;
  switch (p.kernel_h) {
    case 3:
      return strided ? dense<T, 3, 2> : dense<T, 3, 1>;
    case 5:
      return strided ? dense<T, 5, 2> : dense<T, 5, 1>;
    case 7:
      return strided ? dense<T, 7, 2> : dense<T, 7, 1>;
    default:
      return general<T>;
  }
}

template <class T>
void run(const DepthwiseConv2dParams& p, int64_t begin, int64_t end) {
  const Routine<T> routine = choose_routine<T>(p);
  const int64_t blocks = channel_blocks(p), rows = row_blocks(p);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t block = index % blocks, row_block = index / blocks % rows, image = index / (blocks * rows);
    const Task<T> task{p, (const T*)p.x + image * p.x_image_stride, (T*)p.y + image * p.out_h * p.out_w * p.channels,
                       block * p.channels_per_task,
                       block + 1 == blocks ? p.channels : (block + 1) * p.channels_per_task};
    const int64_t row_begin = row_block * p.rows_per_task;
    const int64_t row_end = row_begin + p.rows_per_task;
    routine(task, row_begin, row_end < p.out_h ? row_end : p.out_h);
  }
}

}  // namespace

void depthwise_conv2d(const DepthwiseConv2dParams& p, int64_t begin, int64_t end) {
  if (p.element == Element::float32) {
    run<float>(p, begin, end);
  } else {
    run<BFloat16>(p, begin, end);
  }
}

}  // namespace mobilevit_fast::cpu::MVF_ISA
