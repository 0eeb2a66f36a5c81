#include "memory.h"

#include "common/checks.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mobilevit_fast::cpu {
namespace {

// Asks for transparent huge pages of 2 MiB. Fresh memory costs a page fault for every page that is written first: a
// result of tens of megabytes, fresh in every call, took as long in page faults as in the convolution that fills it.
// Only blocks from 32 MiB on: glibc maps these by themselves, unless its heap has room for them by chance, and unmaps
// them when they are freed, so that the advice ends with them; smaller ones lie in the heap, where it would stay with
// whatever comes next. Where the system has no free huge page, it may stop to make one (its setting `defrag`) or take
// small ones.
void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{2} << 20;
  constexpr int64_t kMin = int64_t{32} << 20;
  if (bytes < kMin) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

Tensor empty(int64_t rank, const int64_t* sizes, const int64_t* strides, ScalarType type) {
  int64_t bytes = type == ScalarType::Float ? 4 : 2;
  for (int64_t i = 0; i < rank; ++i) bytes = product_of(bytes, sizes[i]);
  check(bytes != kUncountable,
        "mobilevit_fast: expected a result, and what lies between two steps, of fewer than 2^63 bytes");
  const int32_t dtype = type == ScalarType::Float ? aoti_torch_dtype_float32() : aoti_torch_dtype_bfloat16();
  AtenTensorHandle handle = nullptr;
  const AOTITorchError failed =
      aoti_torch_empty_strided(rank, sizes, strides, dtype, aoti_torch_device_type_cpu(), 0, &handle);
  check(failed == AOTI_TORCH_SUCCESS, "mobilevit_fast: expected ", bytes,
        " bytes of memory for a result or what lies between two steps, got none");
  Tensor tensor(handle);
  advise_huge_pages(tensor.mutable_data_ptr(), bytes);
  return tensor;
}

}  // namespace

Tensor empty_floats(int64_t count) {
  const int64_t stride = 1;
  return empty(1, &count, &stride, ScalarType::Float);
}

Tensor empty_matrix(int64_t rows, int64_t columns, ScalarType type) {
  const int64_t sizes[] = {rows, columns}, strides[] = {columns, 1};
  return empty(2, sizes, strides, type);
}

Tensor empty_channels_last(int64_t n, int64_t c, int64_t h, int64_t w, ScalarType type) {
  const int64_t sizes[] = {n, c, h, w}, strides[] = {product_of(h, w, c), 1, product_of(w, c), c};
  return empty(4, sizes, strides, type);
}

}  // namespace mobilevit_fast::cpu
