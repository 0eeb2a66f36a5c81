// Classifier head on the CPU: parameters and entry points.
#pragma once

#include "common/activation.h"
#include "common/image.h"
#include "cpu/cpu_isa.h"
#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {

// y = linear(mean over the image of activation(expand(x))), the expansion with scale and bias, the linear layer with a
// bias. `packed` is the panels of the expansion, then those of the linear layer.
struct ClassifierHeadParams {
  ImageBatch x;
  Element element;
  void* y;        // (batch, classes), of x's element type
  float* pooled;  // (batch, expanded, padded to a block): the means
  const float* packed;
  int64_t expanded, classes;
  Activation activation;
};

// The means: a task is one panel of the expansion of one image.
static inline int64_t pool_tasks(const ClassifierHeadParams& p) { return p.x.batch * panel_count(p.expanded); }
// The linear layer: a task is one panel of classes, for all images.
static inline int64_t classify_tasks(const ClassifierHeadParams& p) { return panel_count(p.classes); }

// Each computes tasks [begin, end); one function per instruction set.
#define MVF_DECLARE(isa)                                                          \
  namespace isa {                                                                 \
  void pool_expansion(const ClassifierHeadParams& p, int64_t begin, int64_t end); \
  void classify(const ClassifierHeadParams& p, int64_t begin, int64_t end);       \
  }
MVF_CPU_ISAS(MVF_DECLARE)
#undef MVF_DECLARE

}  // namespace mobilevit_fast::cpu
