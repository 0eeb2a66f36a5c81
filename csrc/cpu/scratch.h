// Working memory of a kernel: one block per thread, kept between calls, grown when a larger one is asked for.
#pragma once

#include <cstdint>

namespace mobilevit_fast::cpu {

// At least `bytes`, aligned to 64, uninitialised; valid until the same thread asks again. Blocks of more than 64 MiB
// are given back at the thread's next request.
void* thread_scratch(int64_t bytes);

}  // namespace mobilevit_fast::cpu
