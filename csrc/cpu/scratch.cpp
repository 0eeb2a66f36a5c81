#include "scratch.h"

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

#include "common/counts.h"

namespace mobilevit_fast::cpu {
namespace {

constexpr int64_t kAlignment = 64, kKept = int64_t{64} << 20;

struct Free {
  void operator()(void* block) const { std::free(block); }
};

struct Scratch {
  std::unique_ptr<void, Free> block;
  int64_t bytes = 0;
};

}  // namespace

void* thread_scratch(int64_t bytes) {
  thread_local Scratch scratch;
  if (bytes > scratch.bytes || scratch.bytes > kKept) {
    scratch.block.reset();
    scratch.bytes = sum_of(bytes, kAlignment - 1) / kAlignment * kAlignment;
    scratch.block.reset(bytes == kUncountable ? nullptr : std::aligned_alloc(kAlignment, scratch.bytes));
    if (!scratch.block) {
      scratch.bytes = 0;
      throw std::runtime_error("mobilevit_fast: no memory for the " + std::to_string(bytes) +
                               " bytes of working memory that a thread needs for this image");
    }
  }
  return scratch.block.get();
}

}  // namespace mobilevit_fast::cpu
