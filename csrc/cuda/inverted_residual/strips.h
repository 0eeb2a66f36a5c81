// The inverted residual by strips (strips_kernel.h): which shapes have a kernel, parameters, entry point.
//
// SiLU, dilation 1. Weights are packed as mobilevit_fast/kernels/cuda/strips.py says.
#pragma once

#include "cuda/runtime.h"
#include "cuda/sizes.h"

namespace mobilevit_fast::cuda {

constexpr int kStripColumns = 16;  // of a warp
constexpr int kRowsTogether = 2;   // of results
constexpr int kStripsMostColumns = 1 << 20;

// Channels of a layer and, in words of 16 bytes, what shared memory has of its weights.
struct StripsChannels {
  int channels, expanded, outputs;
  bool diagonals = false;  // the depthwise convolution is done by the matrix unit: bfloat16

  MVF_HOST_DEVICE constexpr int steps() const { return (channels + kMatrixDepth - 1) / kMatrixDepth; }
  MVF_HOST_DEVICE constexpr int chunks() const { return expanded / kMatrixDepth; }  // of 16 expanded channels
  MVF_HOST_DEVICE constexpr int tiles() const { return (outputs / kMatrixColumns + 1) / 2 * 2; }

  MVF_HOST_DEVICE constexpr int expand() const { return 0; }
  MVF_HOST_DEVICE constexpr int taps() const { return expand() + chunks() * steps() * kWarpSize; }
  MVF_HOST_DEVICE constexpr int chunk_taps() const { return diagonals ? 40 : 20; }
  MVF_HOST_DEVICE constexpr int zeros() const { return taps() + chunks() * chunk_taps(); }  // beside the diagonals
  MVF_HOST_DEVICE constexpr int affine() const { return zeros() + (diagonals ? 5 : 0); }
  MVF_HOST_DEVICE constexpr int project() const { return affine() + chunks() * 16; }
  MVF_HOST_DEVICE constexpr int result_affine() const { return project() + chunks() * tiles() * 16; }
  MVF_HOST_DEVICE constexpr int words() const { return result_affine() + tiles() * 4; }
  // Bytes of what waits of 16 expanded channels, of a warp.
  MVF_HOST_DEVICE constexpr int waiting_bytes(int stride) const {
    return (stride == 1 ? 32 : diagonals ? 16 : 8) * kWarpSize;
  }

  MVF_HOST_DEVICE constexpr bool operator==(const StripsChannels& o) const {
    return channels == o.channels && expanded == o.expanded && outputs == o.outputs;
  }
};

struct StripsShape {
  StripsChannels size;
  int stride, warps;   // of a block, of which a multiprocessor has one
  int bfloat16_warps;  // as many as shared memory and registers allow
  int busy;            // per cent of all warps that have to find a pair of rows, or other kernels are faster
};

// Those of MobileViT S, XS and XXS, but for 128 to 160 channels, whose weights are more than shared memory.
constexpr StripsShape kStripsShapes[] = {
    {{16, 64, 32}, 1, 16, 16, 150},   // S and XS, 128x128 pixels
    {{32, 128, 64}, 2, 12, 12, 150},  // S, 128x128
    {{64, 256, 64}, 1, 8, 8, 150},    // S, 64x64
    {{64, 256, 96}, 2, 8, 8, 150},    // S, 64x64
    {{96, 384, 128}, 2, 7, 3, 75},    // S, 32x32
    {{32, 128, 48}, 2, 12, 12, 150},  // XS, 128x128
    {{48, 192, 48}, 1, 8, 8, 150},    // XS, 64x64
    {{48, 192, 64}, 2, 8, 8, 150},    // XS, 64x64
    {{64, 256, 80}, 2, 8, 8, 75},     // XS, 32x32
    {{80, 320, 96}, 2, 8, 8, 50},     // XS, 16x16
    {{16, 32, 16}, 1, 16, 16, 150},   // XXS, 128x128
    {{16, 32, 24}, 2, 16, 16, 150},   // XXS, 128x128
    {{24, 48, 24}, 1, 12, 12, 150},   // XXS, 64x64
    {{24, 48, 48}, 2, 12, 12, 150},   // XXS, 64x64
    {{48, 96, 64}, 2, 8, 8, 75},      // XXS, 32x32
    {{64, 128, 80}, 2, 8, 8, 50},     // XXS, 16x16
};
constexpr int kStripsShapeCount = sizeof(kStripsShapes) / sizeof(StripsShape);

// Images lie side by side, `together` of them, and their columns are cut into `strips` of 16, `step` columns apart.
struct StripsParams {
  const void* x;           // (batch, height, width, channels), dense
  void* y;                 // (batch, height / stride, width / stride, outputs)
  const Bytes16* weights;  // as shared memory has them
  int batch, height, width;
  int together, strips, step;
  int blocks;
  bool residual;
  int warps;  // of a block

  // The layout that takes the fewest strips. A strip has 14 columns of results, an image's edges are results too.
  void complete(const Chip& chip) {
    blocks = chip.processors;
    step = kStripColumns % width == 0 ? kStripColumns : kStripColumns - 2;
    together = kStripColumns % width == 0 ? kStripColumns / width : 1, strips = 1;
    if (step == kStripColumns) return;
    strips = ceil_div(width - 2, step);
    for (int images = 2; images <= 8; ++images) {
      const int count = ceil_div(images * width - 2, step);
      if (count * together < strips * images) together = images, strips = count;
    }
  }
  MVF_HOST_DEVICE int iterations(int stride) const { return ceil_div(height / stride, kRowsTogether); }
  // Pairs of rows of results of a strip: what warps have shares of.
  MVF_HOST_DEVICE int64_t units(int stride) const {
    return int64_t{1} * ceil_div(batch, together) * strips * iterations(stride);
  }
};

constexpr int most_strips_warps(int shape, bool bfloat16) {
  return bfloat16 ? kStripsShapes[shape].bfloat16_warps : kStripsShapes[shape].warps;
}

// Warps for which a chip's shared memory has room beside the weights, up to the shape's; none where these are fewer
// than half of them or than four, too few to hide each other's waits. Compute capability 9.0 has room for all.
inline int strips_warps(int shape, bool bfloat16, const Chip& chip) {
  StripsChannels size = kStripsShapes[shape].size;
  size.diagonals = bfloat16;
  const int most = most_strips_warps(shape, bfloat16), least = most < 4 ? most : most < 8 ? 4 : ceil_div(most, 2);
  const int room = chip.shared_bytes - size.words() * static_cast<int>(sizeof(Bytes16));
  const int warps = room / (size.chunks() * size.waiting_bytes(kStripsShapes[shape].stride));
  return room < 0 || warps < least ? 0 : warps < most ? warps : most;
}

// Words of packed weights; none where no shape has these channels.
inline int strips_words(const StripsChannels& size) {
  for (const StripsShape& shape : kStripsShapes) {
    if (shape.size == size) return size.words();
  }
  return 0;
}

// The number of the shape whose kernel takes images of this size; -1 if there is none.
inline int find_strips(const StripsChannels& size, int stride, int height, int width) {
  for (int i = 0; i < kStripsShapeCount; ++i) {
    const StripsShape& shape = kStripsShapes[i];
    if (!(shape.size == size && shape.stride == stride)) continue;
    const bool counts = height > 0 && width > 0 && width <= kStripsMostColumns;
    return counts && height % stride == 0 && width % 2 == 0 ? i : -1;
  }
  return -1;
}

// Whether a chip's warps find enough to do: with the rows before its own, a warp computes one pair more than it has.
inline bool strips_are_busy(int shape, const StripsParams& p) {
  const int64_t units = p.units(kStripsShapes[shape].stride);
  const int64_t warps = int64_t{1} * p.blocks * p.warps;
  return units < int64_t{1} << 31 && 100 * units >= warps * kStripsShapes[shape].busy;
}

// On compute capability 9.0, with all warps of the shape, started dependently; on other chips.
template <class T>
cudaError_t strips_sm90(int shape, const StripsParams& params, cudaStream_t stream);
template <class T>
cudaError_t strips(int shape, const StripsParams& params, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
