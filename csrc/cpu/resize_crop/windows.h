// The windows of the places along an edge of a resized image, as Pillow computes them, in the order of the kernels.
#pragma once

#include <cstdint>

#include "common/resampling.h"

namespace mobilevit_fast::cpu {

using mobilevit_fast::Filter;

// Bits of a coefficient's lower part. Products of pixels with both parts fit 32 bits in pairs: coefficient = 256 * high
// + low.
constexpr int kLowBits = 8;

// Windows of one length; coefficients behind the end of a shorter one are zero, also where there is no pixel.
struct WindowTable {
  const int32_t* begins;  // (places): first pixel of a window
  // (places, 2, pairs): two coefficients in a word, the first one in the lower 16 bits; high parts, then low parts.
  const int32_t* words;
  int64_t pairs;
};

// Places [first, first + count) of the `out` places that an edge of `in` pixels is resized to.
struct Edge {
  int64_t in, out, first, count;
};

// The longest window of an edge, in pixels.
int64_t window_length(Filter filter, const Edge& edge);

// Fills begins (count) and words (count, 2, pairs); 2 * pairs is at least the longest window.
void make_windows(Filter filter, const Edge& edge, int64_t pairs, int32_t* begins, int32_t* words);

}  // namespace mobilevit_fast::cpu
