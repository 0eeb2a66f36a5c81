// The inverted residuals of the three sizes of MobileViT, and how the kernel for few images divides them.
#pragma once

#include "small_parts_sm90.h"
#include "small_residual_sm90.h"

namespace mobilevit_fast::cuda::few {

// Tiles of kHigh x kWide output pixels by kSlices blocks. Expand and Project are how warps share out the two products.
template <int kInputs_, int kExpanded_, int kOutputs_, int kStride_, int kSlices_, int kHigh_, int kWide_,
          class Expand_, class Project_>
struct ResidualShape {
  using Expand = Expand_;
  using Project = Project_;
  static constexpr int kInputs = kInputs_, kExpanded = kExpanded_, kOutputs = kOutputs_, kStride = kStride_;
  static constexpr int kSlices = kSlices_, kHigh = kHigh_, kWide = kWide_;
  static constexpr bool kResidual = kStride == 1 && kInputs == kOutputs;
  // Expanded channels of a block; in tiles of 8. Inputs in steps of 16 and pairs of them.
  static constexpr int kHere = kExpanded / kSlices, kTiles = kHere / 8;
  static constexpr int kSteps = ceil_div(kInputs, 16), kPairs = ceil_div(kInputs, 32);
  static constexpr int kInHigh = (kHigh - 1) * kStride + 3, kInWide = (kWide - 1) * kStride + 3;
  static constexpr int kInPixels = kInHigh * kInWide, kInRowTiles = ceil_div(kInPixels, 16);
  static constexpr int kPixels = kHigh * kWide, kRowTiles = ceil_div(kPixels, 16);
  static constexpr int kOutTiles = ceil_div(kOutputs / 8, kSlices), kOutSteps = kExpanded / 16;
  static constexpr int kInPitch = odd_pitch(kSteps * 16), kPitch = odd_pitch(kHere), kOutPitch = odd_pitch(kExpanded);
  // Weights of a slice, as mobilevit_fast/kernels/cuda/sm90/small_residual.py leaves them.
  static constexpr int kAtExpandScale = kTiles * kPairs * kFragment, kAtWindow = kAtExpandScale + kHere * 8;
  static constexpr int kAtWindowScale = kAtWindow + kHere * 18, kAtProject = round_up(kAtWindowScale + kHere * 8, 128);
  static constexpr int kAtProjectScale = kAtProject + kOutTiles * ceil_div(kOutSteps, 2) * kFragment;
  static constexpr int kBytes = round_up(kAtProjectScale + kOutTiles * 64, 128);
  // Behind them.
  static constexpr int kAtInput = kBytes, kAtExpanded = kAtInput + round_up(kInRowTiles * 16 * kInPitch * 2, 128);
  static constexpr int kAtConvolved = kAtExpanded + round_up(kInRowTiles * 16 * kPitch * 2, 128);
  static constexpr int kAtReduce = kAtConvolved + round_up(kRowTiles * 16 * kOutPitch * 2, 128);
  static constexpr int kAtBarriers = kAtReduce + (Project::kDeep > 1 ? kReduceBytes : 0);
  static constexpr int kShared = kAtBarriers + 16;
  static_assert(kInputs % 8 == 0 && kOutputs % 8 == 0 && kExpanded % 16 == 0 && kHere % 8 == 0);
  static_assert(kShared <= kMaxShared);

  static int64_t tiles(const SmallResidualParams& p) {
    return int64_t{1} * p.batch * ceil_div(p.out_h, kHigh) * ceil_div(p.out_w, kWide);
  }
};

using ResidualShapes = List<ResidualShape<16, 64, 32, 1, 1, 8, 16, Split<2, 1, 4>, Split<1, 1, 8>>,  // S and XS
                            ResidualShape<32, 128, 64, 2, 1, 4, 8, Split<4, 1, 2>, Split<4, 1, 2>>,  // S
                            ResidualShape<64, 256, 64, 1, 1, 4, 8, Split<8, 1, 1>, Split<4, 1, 2>>,
                            ResidualShape<64, 256, 96, 2, 1, 2, 4, Split<8, 1, 1>, Split<4, 2, 1>>,
                            ResidualShape<96, 384, 128, 2, 4, 2, 4, Split<6, 1, 1>, Split<4, 2, 1>>,
                            ResidualShape<128, 512, 160, 2, 8, 2, 4, Split<8, 1, 1>, Split<3, 2, 1>>,
                            ResidualShape<32, 128, 48, 2, 1, 4, 8, Split<4, 1, 2>, Split<3, 1, 2>>,  // XS
                            ResidualShape<48, 192, 48, 1, 1, 4, 8, Split<8, 1, 1>, Split<3, 1, 2>>,
                            ResidualShape<48, 192, 64, 2, 1, 2, 4, Split<8, 1, 1>, Split<4, 2, 1>>,
                            ResidualShape<64, 256, 80, 2, 4, 2, 4, Split<8, 1, 1>, Split<3, 2, 1>>,
                            ResidualShape<80, 320, 96, 2, 8, 2, 4, Split<5, 1, 1>, Split<2, 4, 1>>,
                            ResidualShape<16, 32, 16, 1, 1, 8, 16, Split<2, 1, 4>, Split<1, 1, 8>>,  // XXS
                            ResidualShape<16, 32, 24, 2, 1, 4, 8, Split<2, 1, 4>, Split<3, 1, 2>>,
                            ResidualShape<24, 48, 24, 1, 1, 4, 8, Split<2, 1, 4>, Split<3, 1, 2>>,
                            ResidualShape<24, 48, 48, 2, 1, 2, 4, Split<2, 1, 3>, Split<6, 1, 1>>,
                            ResidualShape<48, 96, 64, 2, 1, 2, 4, Split<6, 1, 1>, Split<8, 1, 1>>,
                            ResidualShape<64, 128, 80, 2, 1, 2, 4, Split<8, 1, 1>, Split<5, 1, 1>>>;

// Calls visit(shape) with that of these channels; false, calling nothing, where there is none.
template <class Visit, class... Shapes>
bool with_residual_shape(int channels, int expanded, int outputs, const Visit& visit, List<Shapes...>) {
  const auto fits = [&](auto shape) {
    using S = decltype(shape);
    return channels == S::kInputs && expanded == S::kExpanded && outputs == S::kOutputs;
  };
  return ((fits(Shapes()) && (visit(Shapes()), true)) || ...);
}

}  // namespace mobilevit_fast::cuda::few
