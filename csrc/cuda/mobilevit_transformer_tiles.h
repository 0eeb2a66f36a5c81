// Which kernels of the transformer stack there are, and which one a shape gets.
#pragma once

#include "mobilevit_transformer_kernel.h"
#include "mobilevit_transformer_layer_kernel.h"

namespace mobilevit_fast::cuda {

// Calls visit(K()) with the kernel of a tile; false, calling nothing, where there is none that holds it.
template <class T, class Visit>
bool with_transformer_stack(const MobileViTTransformerParams& p, const Visit& visit) {
  using Narrow = MobileViTTransformerStack<T, 3, 3, 4>;
  using Wide = MobileViTTransformerStack<T, 4, 2, 4>;
  if (Narrow::holds(p)) return visit(Narrow()), true;
  if (Wide::holds(p)) return visit(Wide()), true;
  return false;
}

template <class T, class Visit>
bool with_transformer_layer(const MobileViTTransformerParams& p, const Visit& visit) {
  using Large = MobileViTTransformerLayer<T, 2, 4>;
  using Small = MobileViTTransformerLayer<T, 1, 4>;
  if (Large::holds(p)) return visit(Large()), true;
  if (Small::holds(p)) return visit(Small()), true;
  return false;
}

}  // namespace mobilevit_fast::cuda
