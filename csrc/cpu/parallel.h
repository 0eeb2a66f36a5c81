// Tasks on torch's own threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "guided_for.h"

namespace mobilevit_fast::cpu {

// `run(begin, end)` over [0, count), dynamically scheduled (cpu/guided_for.h). Exceptions reach the caller
// as they are, where torch's own loop would make others of them.
template <class Run>
void parallel_for(int64_t count, const Run& run, int64_t least = 1) {
  const auto spread = [](int64_t threads, const auto& body) {
    torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) { body(); });
  };
  guided_for(torch::stable::get_num_threads(), spread, count, run, least);
}

}  // namespace mobilevit_fast::cpu
