// Which kernels of the transformer stack there are, and which one a shape gets.
#pragma once

#include "mobilevit_transformer_kernel.h"
#include "mobilevit_transformer_layer_kernel.h"
#include "mobilevit_transformer_warps_kernel.h"

namespace mobilevit_fast::cuda {

// Calls visit(K()) with the kernel for these parameters; false, calling nothing, where there is none that holds it. By
// warps there are those widths of MobileViT-XXS and -XS in 4 heads that registers hold: 64, 80, 96 and 120.
template <class T, class Visit>
bool with_transformer_warps(const MobileViTTransformerParams& p, const Visit& visit) {
  const auto is = [&](auto kernel) { return decltype(kernel)::holds(p) && (visit(kernel), true); };
  return is(MobileViTTransformerWarps<T, 4, 2>()) || is(MobileViTTransformerWarps<T, 5, 3>()) ||
         is(MobileViTTransformerWarps<T, 6, 3>()) || is(MobileViTTransformerWarps<T, 8, 4>());
}

template <class T, class Visit>
bool with_transformer_stack(const MobileViTTransformerParams& p, const Visit& visit) {
  if (!MobileViTTransformerStack<T>::holds(p)) return false;
  visit(MobileViTTransformerStack<T>());
  return true;
}

template <class T, class Visit>
bool with_transformer_layer(const MobileViTTransformerParams& p, const Visit& visit) {
  using Large = MobileViTTransformerLayer<T, 2>;
  using Small = MobileViTTransformerLayer<T, 1>;
  if (Large::holds(p)) return visit(Large()), true;
  if (Small::holds(p)) return visit(Small()), true;
  return false;
}

// Whether the kernel by warps is the one to take: where its blocks, which are large, keep half of the processors busy.
template <class T>
bool choose_transformer_warps(const MobileViTTransformerParams& p, const Chip& chip) {
  bool fits = false;
  with_transformer_warps<T>(p, [&](auto kernel) {
    using Kernel = decltype(kernel);
    fits =
        2 * static_cast<int>(Kernel::blocks(p)) >= chip.processors && Kernel::shared_bytes(p) <= chip.shared_memory();
  });
  return fits;
}

// Sets p.sequences and p.head_group to what takes the least time: blocks that run one after another on a processor,
// times the rows of one, but for few rows, where loading the weights takes longer than what is done with them. False
// where a sequence does not fit, or blocks leave more than a third of the processors idle.
template <class T>
bool choose_transformer_stack(MobileViTTransformerParams& p, const Chip& chip) {
  using Kernel = MobileViTTransformerStack<T>;
  constexpr int kFewRows = 64, kExtraRows = 16;
  MobileViTTransformerParams tried = p;
  int least = 0;
  for (tried.sequences = 1; tried.sequences <= p.all_sequences; ++tried.sequences) {
    const int rows = Kernel::rows_of(tried, tried.sequences), blocks = static_cast<int>(Kernel::blocks(tried));
    if ((tried.sequences > 1 && rows > Kernel::kMaxRows) || 3 * blocks < 2 * chip.processors) break;
    const int cost = ceil_div(blocks, chip.processors) * ((rows > kFewRows ? rows : kFewRows) + kExtraRows);
    if (least > 0 && cost >= least) continue;
    for (tried.head_group = p.heads; tried.head_group > 0; tried.head_group /= 2) {
      if (!Kernel::holds(tried) || Kernel::shared_bytes(tried) > chip.shared_memory()) continue;
      least = cost, p.sequences = tried.sequences, p.head_group = tried.head_group;
      break;
    }
  }
  return least > 0;
}

// Sets p.rows, p.keys and p.head_group. Large tiles load weights less often, small ones keep more processors
// busy. False where not even the smallest fits.
template <class T>
bool choose_transformer_layer(MobileViTTransformerParams& p, const Chip& chip) {
  const auto fits = [&](int rows) {
    p.rows = rows;
    p.head_group = 8 / (rows / kMatrixRows);
    if (p.head_group > p.heads) p.head_group = p.heads;
    for (p.keys = 64; p.keys >= kMatrixDepth; p.keys /= 2) {
      if (p.keys > kMatrixDepth && p.keys / 2 >= p.tokens) continue;
      bool found = false;
      with_transformer_layer<T>(p, [&](auto kernel) {
        using Kernel = decltype(kernel);
        found = Kernel::shared_bytes(p) <= chip.shared_memory();
      });
      if (found) return true;
    }
    return false;
  };
  for (const int rows : {64, 32}) {
    if (p.tokens > rows / 2 && p.all_sequences * ceil_div(p.tokens, rows) >= 2 * chip.processors && fits(rows)) {
      return true;
    }
  }
  return fits(16);
}

}  // namespace mobilevit_fast::cuda
