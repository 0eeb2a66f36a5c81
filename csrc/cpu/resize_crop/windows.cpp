// Compiled without contraction to multiply-adds: every operation rounds as Pillow's does.
#include "windows.h"

#include <vector>

#include "common/resampling_windows.h"
#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {

int64_t window_length(Filter filter, const Edge& edge) {
  const Resampling resampling(filter, edge.in, edge.out);
  int64_t longest = 0;
  for (int64_t i = 0; i < edge.count; ++i) {
    const Rounded center = resampling.center(edge.first + i);
    longest = larger(longest, resampling.end(center) - resampling.begin(center));
  }
  return longest;
}

void make_windows(Filter filter, const Edge& edge, int64_t pairs, int32_t* begins, int32_t* words) {
  const Resampling resampling(filter, edge.in, edge.out);
  std::vector<double> weights(2 * pairs);
  for (int64_t i = 0; i < edge.count; ++i, words += 2 * pairs) {
    const Rounded center = resampling.center(edge.first + i);
    const int64_t begin = resampling.begin(center), count = resampling.end(center) - begin;
    begins[i] = static_cast<int32_t>(begin);
    Rounded sum = 0.0;
    for (int64_t k = 0; k < count; ++k) {
      weights[k] = resampling.weight(begin + k, center).value;
      sum = sum + weights[k];
    }
    const auto coefficient = [&](int64_t k) { return k < count ? Resampling::coefficient(weights[k], sum) : 0; };
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

}  // namespace mobilevit_fast::cpu
