// Sums and products of sizes that come from outside. They cannot overflow: what 63 bits do not hold is kUncountable,
// and so is what is computed from that. Whatever hands out memory refuses as much.
#pragma once

#include <cstdint>

namespace mobilevit_fast {

constexpr int64_t kUncountable = INT64_MAX;

// Of numbers of at least 0.
static inline constexpr int64_t sum_of(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? kUncountable : sum;
}

static inline constexpr int64_t product_of(int64_t a) { return a; }
template <class... Sizes>
static inline constexpr int64_t product_of(int64_t a, int64_t b, Sizes... others) {
  int64_t product = 0;
  const bool uncountable =
      __builtin_mul_overflow(a, b, &product) || ((a == kUncountable || b == kUncountable) && product != 0);
  return product_of(uncountable ? kUncountable : product, others...);
}

}  // namespace mobilevit_fast
