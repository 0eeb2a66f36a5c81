// Deals tasks out to torch's threads.
#pragma once

#include <atomic>

#include "checks.h"
#include "mobilevit_fast/gemm_layout.h"

namespace mobilevit_fast::cpu {

// Runs `run(begin, end)` over parts of [0, count), of which a thread takes the next when it is done with one: on a
// shared machine threads are not equally fast. Parts become smaller towards the end. Which thread runs a task must not
// change its result.
template <class Run>
void deal(int64_t count, const Run& run, int64_t least = 1) {
  const int64_t threads = smaller(ceil_div(count, least), torch::stable::get_num_threads());
  if (threads <= 1) {
    if (count > 0) run(0, count);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    int64_t begin = next.load(std::memory_order_relaxed);
    while (begin < count) {
      const int64_t size = larger(least, (count - begin) / (2 * threads));
      if (!next.compare_exchange_weak(begin, begin + size, std::memory_order_relaxed)) continue;
      run(begin, smaller(begin + size, count));
      begin = next.load(std::memory_order_relaxed);
    }
  });
}

}  // namespace mobilevit_fast::cpu
