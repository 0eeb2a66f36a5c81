// Which variant multiplies by an operator's weights, and how these are packed for it.
#pragma once

#include <array>
#include <cstring>
#include <initializer_list>

#include "common/packed.h"
#include "cpu/cpu_isa.h"
#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {

struct Products {
  Isa isa;
  int64_t factors;  // in a word

  // Of float32 words, whatever the type of the weights.
  Products() : isa(active_isa()), factors(1) {}
  // Sums of so many MACs each, of weights of bfloat16 or of float32.
  Products(bool bfloat16, std::initializer_list<int64_t> depths) {
    bool even = true;
    for (const int64_t depth : depths) even = even && depth % 2 == 0;
    isa = product_isa(active_isa(), bfloat16, even);
    factors = word_factors(isa);
  }
  // In tiles or of float32 words, for an operator without kernels for pairs alone.
  static Products of_tiles(bool bfloat16, int64_t depth) {
    Products products(bfloat16, {depth});
    if (products.tiles()) return products;
    products.isa = product_isa(active_isa(), false, false), products.factors = 1;
    return products;
  }

  bool tiles() const { return multiplies_tiles(isa); }
  RowGroups row_groups() const { return tiles() ? kTileRows : kVectorRows; }
  const char* order() const { return factors == 1 ? "numbers" : tiles() ? "tiles" : "pairs"; }
};

// Sizes of an operator's weights, in the order of its schema, and of what else their packing depends on, are a struct
// of nothing but int64_t, which has kOp, products() and packed_words().
template <class Sizes>
using Numbers = std::array<int64_t, sizeof(Sizes) / sizeof(int64_t)>;
template <class Sizes>
Numbers<Sizes> numbers_of(const Sizes& sizes) {
  Numbers<Sizes> numbers;
  std::memcpy(numbers.data(), &sizes, sizeof(sizes));
  return numbers;
}

struct PackedShape {
  int64_t rows, numbers;
};

// Bytes of a row of an operator's packed weights.
template <class Sizes>
int64_t row_bytes(const Sizes&, const Products& products) {
  return packed_row_bytes(Sizes::kOp, products.order());
}
template <class Sizes>
PackedShape packed_shape(const Sizes& sizes, const Products& products, bool bfloat16) {
  const int64_t bytes = row_bytes(sizes, products);
  return {packed_rows(product_of(sizes.packed_words(products), 4), bytes), bytes / (bfloat16 ? 2 : 4)};
}

}  // namespace mobilevit_fast::cpu
