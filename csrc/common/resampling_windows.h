// What a place along an edge of a resized image sees of the edge before, and by which coefficients, as Pillow computes
// it in float64. Of compilers for a CPU, one that may fuse multiplications and additions has to be told not to.
#pragma once

#include <cmath>

#include "resampling.h"

#if defined(__CUDACC__)
#define MVF_ANYWHERE __host__ __device__ __forceinline__
#else
#define MVF_ANYWHERE inline
#endif

namespace mobilevit_fast {

// A float64 of which every operation is rounded by itself, on a GPU too.
struct Rounded {
  MVF_ANYWHERE Rounded(double number) : value(number) {}

  double value;
};

#if defined(__CUDA_ARCH__)
MVF_ANYWHERE Rounded operator+(Rounded a, Rounded b) { return __dadd_rn(a.value, b.value); }
MVF_ANYWHERE Rounded operator-(Rounded a, Rounded b) { return __dsub_rn(a.value, b.value); }
MVF_ANYWHERE Rounded operator*(Rounded a, Rounded b) { return __dmul_rn(a.value, b.value); }
MVF_ANYWHERE Rounded operator/(Rounded a, Rounded b) { return __ddiv_rn(a.value, b.value); }
#else
MVF_ANYWHERE Rounded operator+(Rounded a, Rounded b) { return a.value + b.value; }
MVF_ANYWHERE Rounded operator-(Rounded a, Rounded b) { return a.value - b.value; }
MVF_ANYWHERE Rounded operator*(Rounded a, Rounded b) { return a.value * b.value; }
MVF_ANYWHERE Rounded operator/(Rounded a, Rounded b) { return a.value / b.value; }
#endif

// Pixels to either side that a filter sees, of an image that keeps its size.
MVF_ANYWHERE double radius_of(Filter filter) {
  if (filter == Filter::box) return 0.5;
  return filter == Filter::bicubic ? 2.0 : filter == Filter::lanczos ? 3.0 : 1.0;
}

MVF_ANYWHERE Rounded sine_over_angle(Rounded angle) { return Rounded(std::sin(angle.value)) / angle; }

// The filter at a distance, in pixels of the smaller image.
MVF_ANYWHERE Rounded weight_at(Filter filter, Rounded x) {
  constexpr double kPi = 3.14159265358979323846;
  if (filter == Filter::box) return x.value > -0.5 && x.value <= 0.5 ? 1.0 : 0.0;
  if (filter == Filter::lanczos) {
    if (x.value == 0.0) return 1.0;
    if (x.value < -3.0 || x.value >= 3.0) return 0.0;
    return sine_over_angle(x * kPi) * sine_over_angle(x / 3.0 * kPi);
  }
  if (x.value < 0.0) x = -x.value;
  if (filter == Filter::bilinear) return x.value < 1.0 ? Rounded(1.0) - x : 0.0;
  if (filter == Filter::hamming) {
    if (x.value == 0.0) return 1.0;
    if (x.value >= 1.0) return 0.0;
    const Rounded angle = x * kPi;
    return sine_over_angle(angle) * (Rounded(0.46f) * std::cos(angle.value) + 0.54f);
  }
  if (x.value < 1.0) return (Rounded(1.5) * x - 2.5) * x * x + 1.0;
  if (x.value < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5;
  return 0.0;
}

// An edge of `in` pixels, fewer than 2^24, that becomes one of `out`.
class Resampling {
 public:
  MVF_ANYWHERE Resampling(Filter filter, int64_t in, int64_t out)
      : in(in),
        out(out),
        filter_(filter),
        step_(Rounded(static_cast<double>(in)) / static_cast<double>(out)),
        widening_(step_.value < 1.0 ? 1.0 : step_.value),
        narrowing_(Rounded(1.0) / widening_),
        support_(widening_ * radius_of(filter)) {}

  // The window of a place: its centre in pixels, and pixels [begin, end).
  MVF_ANYWHERE Rounded center(int64_t place) const { return (Rounded(static_cast<double>(place)) + 0.5) * step_; }
  MVF_ANYWHERE int64_t begin(Rounded center) const {
    const int64_t pixel = static_cast<int64_t>((center - support_ + 0.5).value);
    return pixel > 0 ? pixel : 0;
  }
  MVF_ANYWHERE int64_t end(Rounded center) const {
    const int64_t pixel = static_cast<int64_t>((center + support_ + 0.5).value);
    return pixel < in ? pixel : in;
  }
  // No window has more pixels. Rounding moves the ends of one by less than 2^-26 altogether; its length without
  // rounding is a whole number, of which one pixel more is allowed, or further from the next one than that.
  MVF_ANYWHERE int64_t longest() const { return static_cast<int64_t>((support_ * 2.0).value) + 1; }

  // What a pixel counts in a window; all of it divided by their sum is 1.
  MVF_ANYWHERE Rounded weight(int64_t pixel, Rounded center) const {
    return weight_at(filter_, (Rounded(static_cast<double>(pixel)) - center + 0.5) * narrowing_);
  }
  static MVF_ANYWHERE int32_t coefficient(Rounded weight, Rounded sum) {
    const Rounded share = sum.value != 0.0 ? weight / sum : weight, scaled = share * double{1 << kCoefficientBits};
    return static_cast<int32_t>((scaled + (scaled.value < 0.0 ? -0.5 : 0.5)).value);
  }

  const int64_t in, out;

 private:
  Filter filter_;
  Rounded step_, widening_, narrowing_, support_;
};

}  // namespace mobilevit_fast
