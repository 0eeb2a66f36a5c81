// Inverted residual by whole rows, for compute capability 9.0: parameters, shapes, entry point.
#pragma once

#include "cuda/runtime.h"
#include "device_sm90.h"
#include "tensor_map.h"

namespace mobilevit_fast::cuda {

constexpr int kRowsGroup = 8;            // expanded channels of a group
constexpr int kRowsConstantPieces = 17;  // of 16 bytes, of a group

// float16 with SiLU; rows are `width` pixels long, which a kernel is made for. Weights are packed:
// expand_weight (expanded / 32, channels / 16, 2, lanes) as inverted_residual.h has it.
// constants (expanded / 8, 17): what member t of a lane's four needs of a group of 8 expanded channels, of which the
//   channels 2t and 2t + 1 are its own: pieces 2t and 2t + 1 have the first eight taps, word t of piece 8 the ninth, in
//   pairs of channels; pieces 9 + t the halves of scales and biases of the expansion, {scales, biases}; pieces 13 + t
//   those of the depthwise convolution.
// project_weight: rows of outputs as a tile in shared memory that wgmma reads with a swizzle of 128 bytes, 64 expanded
//   channels after the other; of a phased kernel fragments (expanded / 16, outputs / 8, lanes) of 8 bytes.
// project_affine (outputs / 8, 4): scales and biases of the two columns of a lane.
// Where output channels lie as columns: mobilevit_fast/kernels/cuda/sm90/rows.py.
struct RowsParams {
  const Half* x;  // (batch, height, width, channels)
  Half* y;        // (batch, height / stride, width / stride, outputs)
  const Bytes16 *expand_weight, *constants, *project_weight;
  const Float4* project_affine;
  int batch, height, width, channels, expanded, outputs, stride;
  bool residual;

  int blocks;
  TensorMap rows;  // of x: a row is an image of `width` / 2 rows and two columns, which are its even and odd pixels
};

// How many entries the arrays have.
struct RowsSizes {
  int64_t x, y, expand_weight, constants, project_weight, project_affine;

  explicit RowsSizes(const RowsParams& p) {
    const int64_t pixels = int64_t{1} * p.batch * p.height * p.width;
    x = pixels * p.channels, y = pixels / (p.stride * p.stride) * p.outputs;
    expand_weight = int64_t{1} * p.expanded * p.channels / 8;
    constants = p.expanded / kRowsGroup * kRowsConstantPieces;
    project_weight = int64_t{1} * p.expanded * p.outputs / 8;
    project_affine = p.outputs / 2;
  }
};

// Whether weights of these sizes are packed for such a kernel: the table in mobilevit_fast/kernels/cuda/sm90/rows.py.
bool has_rows_sm90(int channels, int expanded, int outputs);
// Whether there is a kernel for images of this size and stride; by `p` without pointers.
bool takes_rows_sm90(const RowsParams& p);
// Whether a chip's multiprocessors find enough rows of results, or other kernels are faster: one expands two rows, of
// stride 2 one, besides those of its share.
inline bool rows_sm90_are_busy(const RowsParams& p, const Chip& chip) {
  return int64_t{1} * p.batch * (p.height / p.stride) >= int64_t{1} * chip.processors * (p.stride == 1 ? 6 : 2);
}
// Launches it, of as many blocks as the chip holds and the rows fill.
cudaError_t rows_sm90(RowsParams p, cudaStream_t stream);

}  // namespace mobilevit_fast::cuda
