// Dense convolution with scale, bias and activation on the CPU: parameters and entry points.
#pragma once

#include "common/activation.h"
#include "common/image.h"
#include "cpu/cpu_isa.h"
#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {

// y = activation(scale · conv(x, x2) + bias). The channels of x2 follow those of x; there may be none. y is dense
// channels_last, of x's element type. `packed` is the panels of the weights (kernel_h, kernel_w, channels), or what
// conv2d_winograd takes.
struct Conv2dBiasActParams {
  ImageBatch x, x2;  // x2.channels is 0 without a second input
  Element element;
  void* y;  // (batch, out_h, out_w, outputs)
  const float* packed;
  int64_t outputs, out_h, out_w;
  Window window;
  Activation activation;
  int64_t groups, slices;  // a task is one group of output rows of one image, one slice of the panels
};

// conv2d_winograd computes the same for 3x3 windows without stride and dilation, in tiles of 2x2 outputs that see 4x4
// inputs. `packed` is then panels whose products are (4x4 transformed weights, channels). A task is one group of the
// tiles of all images, one slice of the panels.
constexpr int64_t kWinogradTile = 2, kWinogradSide = 4, kWinogradEntries = kWinogradSide * kWinogradSide;

// Whether conv2d_winograd computes it: with fewer channels the transforms cost more than they save.
static inline bool takes_winograd(int64_t outputs, int64_t channels, const Window& w) {
  constexpr int64_t kMin = 32;
  return w.kernel_h == 3 && w.kernel_w == 3 && w.stride_h == 1 && w.stride_w == 1 && w.dilation_h == 1 &&
         w.dilation_w == 1 && outputs >= kMin && channels >= kMin;
}

static inline int64_t winograd_tiles(const Conv2dBiasActParams& p) {
  return p.x.batch * ceil_div(p.out_h, kWinogradTile) * ceil_div(p.out_w, kWinogradTile);
}

static inline int64_t tasks(const Conv2dBiasActParams& p) { return p.x.batch * p.groups * p.slices; }

// Input rows that `rows` output rows and `taps` rows of the window meet: all between the first and the last, or, where
// those are fewer, one for each pair.
static inline bool lines_are_dense(const Window& window, int64_t rows, int64_t taps) {
  return (rows - 1) * window.stride_h + (taps - 1) * window.dilation_h + 1 <= rows * taps;
}
static inline int64_t line_count(const Window& window, int64_t rows, int64_t taps) {
  return smaller((rows - 1) * window.stride_h + (taps - 1) * window.dilation_h + 1, rows * taps);
}
// The same of input columns, of which a line consists: all of them, or the taps of each output side by side.
static inline bool columns_are_dense(const Window& window, int64_t outputs, int64_t taps) {
  return (outputs - 1) * window.stride_w + (taps - 1) * window.dilation_w + 1 <= outputs * taps;
}
static inline int64_t line_columns(const Window& window, int64_t outputs, int64_t taps) {
  return smaller((outputs - 1) * window.stride_w + (taps - 1) * window.dilation_w + 1, outputs * taps);
}

// Each computes tasks [begin, end); one function per instruction set. In pairs Winograd's algorithm is faster; in tiles
// it is not.
#define MVF_DECLARE(isa)                                                          \
  namespace isa {                                                                 \
  void conv2d_bias_act(const Conv2dBiasActParams& p, int64_t begin, int64_t end); \
  }
MVF_CPU_ISAS_WITHOUT_PAIRS(MVF_DECLARE)
MVF_CPU_ISAS_WITH_TILES(MVF_DECLARE)
#undef MVF_DECLARE
MVF_CPU_SAME_WITHOUT_TILES(conv2d_bias_act)
#define MVF_DECLARE(isa)                                                          \
  namespace isa {                                                                 \
  void conv2d_winograd(const Conv2dBiasActParams& p, int64_t begin, int64_t end); \
  }
MVF_CPU_ISAS_WITHOUT_PAIRS(MVF_DECLARE)
#undef MVF_DECLARE
MVF_CPU_SAME_WITHOUT_PAIRS(conv2d_winograd)

}  // namespace mobilevit_fast::cpu
