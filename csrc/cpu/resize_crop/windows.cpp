// Compiled without contraction to multiply-adds: every operation rounds as Pillow's does.
#include "windows.h"

#include <cmath>
#include <vector>

#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {
namespace {

constexpr double kPi = 3.14159265358979323846;

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= kPi;
  return std::sin(x) / x;
}

template <Filter kFilter>
double weight(double x) {
  if constexpr (kFilter == Filter::box) return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
  if constexpr (kFilter == Filter::lanczos) return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
  x = x < 0.0 ? -x : x;
  if constexpr (kFilter == Filter::bilinear) return x < 1.0 ? 1.0 - x : 0.0;
  if constexpr (kFilter == Filter::hamming) {
    if (x == 0.0) return 1.0;
    if (x >= 1.0) return 0.0;
    x *= kPi;
    return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));
  }
  if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5;
  return 0.0;
}

double radius(Filter filter) {
  switch (filter) {
    case Filter::box:
      return 0.5;
    case Filter::bicubic:
      return 2.0;
    case Filter::lanczos:
      return 3.0;
    default:
      return 1.0;
  }
}

struct Scale {
  Scale(Filter filter, const Edge& edge) : in(edge.in), step(static_cast<double>(edge.in) / edge.out) {
    widening = step < 1.0 ? 1.0 : step;
    support = radius(filter) * widening;
  }
  double center(int64_t place) const { return (place + 0.5) * step; }
  int64_t begin(double center) const { return larger(static_cast<int64_t>(center - support + 0.5), 0); }
  int64_t end(double center) const { return smaller(static_cast<int64_t>(center + support + 0.5), in); }

  int64_t in;
  double step, widening, support;
};

int32_t rounded(double coefficient) {
  coefficient *= 1 << kCoefficientBits;
  return static_cast<int32_t>(coefficient < 0 ? -0.5 + coefficient : 0.5 + coefficient);
}

template <Filter kFilter>
void make(const Edge& edge, int64_t pairs, int32_t* begins, int32_t* words) {
  const Scale scale(kFilter, edge);
  const double narrowing = 1.0 / scale.widening;
  std::vector<double> weights(2 * pairs);
  for (int64_t i = 0; i < edge.count; ++i, words += 2 * pairs) {
    const double center = scale.center(edge.first + i);
    const int64_t begin = scale.begin(center), count = scale.end(center) - begin;
    begins[i] = static_cast<int32_t>(begin);
    double sum = 0.0;
    for (int64_t k = 0; k < count; ++k) {
      weights[k] = weight<kFilter>((begin + k - center + 0.5) * narrowing);
      sum += weights[k];
    }
    const auto coefficient = [&](int64_t k) {
      return k < count ? rounded(sum != 0.0 ? weights[k] / sum : weights[k]) : 0;
    };
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const int32_t first = coefficient(2 * pair), second = coefficient(2 * pair + 1);
      const auto word = [](int32_t lower, int32_t upper) {
        return static_cast<int32_t>((static_cast<uint32_t>(lower) & 0xffff) | static_cast<uint32_t>(upper) << 16);
      };
      constexpr int32_t kLowMask = (1 << kLowBits) - 1;
      words[pair] = word(first >> kLowBits, second >> kLowBits);
      words[pairs + pair] = word(first & kLowMask, second & kLowMask);
    }
  }
}

}  // namespace

int64_t window_length(Filter filter, const Edge& edge) {
  const Scale scale(filter, edge);
  int64_t longest = 0;
  for (int64_t i = 0; i < edge.count; ++i) {
    const double center = scale.center(edge.first + i);
    longest = larger(longest, scale.end(center) - scale.begin(center));
  }
  return longest;
}

void make_windows(Filter filter, const Edge& edge, int64_t pairs, int32_t* begins, int32_t* words) {
  switch (filter) {
    case Filter::lanczos:
      return make<Filter::lanczos>(edge, pairs, begins, words);
    case Filter::bilinear:
      return make<Filter::bilinear>(edge, pairs, begins, words);
    case Filter::bicubic:
      return make<Filter::bicubic>(edge, pairs, begins, words);
    case Filter::box:
      return make<Filter::box>(edge, pairs, begins, words);
    case Filter::hamming:
      return make<Filter::hamming>(edge, pairs, begins, words);
  }
}

}  // namespace mobilevit_fast::cpu
