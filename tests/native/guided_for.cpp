// Checks of guided_for on threads of its own, compiled under ThreadSanitizer by test_guided_for.py.
#include "cpu/guided_for.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using mobilevit_fast::cpu::guided_for;

void expect(bool ok, const char* what, int64_t threads, int64_t count, int64_t least) {
  if (ok) return;
  std::fprintf(stderr, "%s: %lld threads, %lld tasks, parts of at least %lld\n", what, static_cast<long long>(threads),
               static_cast<long long>(count), static_cast<long long>(least));
  std::exit(1);
}

struct Spread {
  int64_t allowed;
  template <class Body>
  void operator()(int64_t threads, const Body& body) const {
    expect(threads > 1 && threads <= allowed, "wrong number of threads", threads, 0, 0);
    std::vector<std::thread> started;
    for (int64_t i = 1; i < threads; ++i) started.emplace_back(body);
    body();
    for (std::thread& thread : started) thread.join();
  }
};

void every_task_runs_once(int64_t threads, int64_t count, int64_t least) {
  std::vector<int> runs(count, 0);  // plain numbers: two threads at one task are a race, which is reported
  std::atomic<int64_t> small{0};
  guided_for(
      threads, Spread{threads}, count,
      [&](int64_t begin, int64_t end) {
        expect(begin < end && end <= count, "a part outside of the tasks", threads, count, least);
        if (end - begin < least) ++small;
        for (int64_t i = begin; i < end; ++i) ++runs[i];
      },
      least);
  for (const int ran : runs) expect(ran == 1, "a task did not run once", threads, count, least);
  expect(small <= 1, "more than one part is too small", threads, count, least);
}

void an_exception_reaches_the_caller(int64_t threads, int64_t count, int64_t least) {
  std::atomic<int64_t> ran{0};
  std::string message;
  try {
    guided_for(
        threads, Spread{threads}, count,
        [&](int64_t begin, int64_t end) {
          if (begin <= count / 2 && count / 2 < end) throw std::length_error("the task in the middle");
          ran += end - begin;
        },
        least);
  } catch (const std::length_error& error) {
    message = error.what();
  }
  expect(message == "the task in the middle", "the exception did not arrive as it was", threads, count, least);
  expect(ran < count, "the task that failed counts as run", threads, count, least);
}

// The first task fails while another thread waits for that; the rest of the tasks, most of them, are left alone.
void an_exception_ends_the_work() {
  constexpr int64_t kTasks = 100000;
  std::atomic<bool> failed{false};
  std::atomic<int64_t> ran{0};
  try {
    guided_for(
        2, Spread{2}, kTasks,
        [&](int64_t begin, int64_t end) {
          if (begin == 0) {
            failed = true;
            throw std::length_error("the first task");
          }
          while (!failed) std::this_thread::yield();
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
          ran += end - begin;
        },
        1);
  } catch (const std::length_error&) {
  }
  expect(failed && ran <= kTasks / 2, "the other thread went on", 2, kTasks, 1);
}

}  // namespace

int main() {
  an_exception_ends_the_work();
  for (const int64_t threads : {1, 2, 3, 8}) {
    for (const int64_t least : {1, 3, 100}) {
      for (const int64_t count : {0, 1, 2, 7, 100, 1000}) {
        every_task_runs_once(threads, count, least);
        if (count > 0) an_exception_reaches_the_caller(threads, count, least);
      }
    }
  }
  std::puts("passed");
  return 0;
}
