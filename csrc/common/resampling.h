// Filters of Pillow's resize, and its coefficients.
#pragma once

#include <cstdint>

namespace mobilevit_fast {

// By the numbers of PIL.Image.Resampling.
enum class Filter : int64_t { lanczos = 1, bilinear = 2, bicubic = 3, box = 4, hamming = 5 };

// Bits of a coefficient behind the point.
constexpr int kCoefficientBits = 22;

}  // namespace mobilevit_fast
