// What every product over pixels is given.
#pragma once

#include "conv2d_bias_act_tiles.h"
#include "cuda/sizes.h"

namespace mobilevit_fast::cuda {

// Images are dense, channels and channels2 multiples of 8. Weights are packed in fragments (fragments.h), zero where
// there is nothing: (units, taps, outputs / 16, lanes), where units are 16 channels of x or x2, each rounded up. Of 16
// outputs a lane has four neighbours: number 8 t + 2 m + h of the fragment is output 4 m + 2 t + h.
struct Conv2dInput {
  const void *x, *x2;  // (batch, height, width, channels or channels2)
  const Bytes16* weight;
  Conv2dShape shape;
  Conv2dTile tile;
};

}  // namespace mobilevit_fast::cuda
