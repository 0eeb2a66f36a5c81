// Dynamic scheduling of tasks, as OpenMP's schedule(guided), on whatever threads there are.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

#include "cpu/gemm/gemm_layout.h"

namespace mobilevit_fast::cpu {

// Runs `run(begin, end)` over parts of [0, count), of which a thread takes the next when it is done with one: on a
// shared machine threads are not equally fast. Parts become smaller towards the end, of at least `least` tasks but for
// the last one. Which thread runs a task must not change its result. `spread(threads, body)` calls body() once on each
// of so many threads and returns when all are done. The first exception ends the others' work and is thrown to the
// caller, as it is.
template <class Spread, class Run>
void guided_for(int64_t threads, const Spread& spread, int64_t count, const Run& run, int64_t least = 1) {
  threads = smaller(ceil_div(count, least), threads);
  if (threads <= 1) {
    if (count > 0) run(0, count);
    return;
  }
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
  spread(threads, [&] {
    int64_t begin = next.load(std::memory_order_relaxed);
    while (begin < count) {
      const int64_t size = larger(least, (count - begin) / (2 * threads));
      if (!next.compare_exchange_weak(begin, begin + size, std::memory_order_relaxed)) continue;
      try {
        run(begin, smaller(begin + size, count));
      } catch (...) {
        const std::lock_guard<std::mutex> lock(error_mutex);
        if (!error) error = std::current_exception();
        next.store(count, std::memory_order_relaxed);
      }
      begin = next.load(std::memory_order_relaxed);
    }
  });
  if (error) std::rethrow_exception(error);
}

}  // namespace mobilevit_fast::cpu
