// Products of warpgroups, of device_sm90.h and wgmma.h.
#pragma once

#include "emulated_shared.h"

namespace mobilevit_fast::cuda {

inline emulated::WarpProducts& warp_products() {
  emulated::Sm90Block& block = sm90_block();
  return block.products[block.self().index / emulated::kWarp];
}
inline unsigned lane_index() { return sm90_block().self().index % emulated::kWarp; }

inline void wgmma_fence() { warp_products().fence(lane_index()); }
inline void wgmma_commit(MVF_PLACE) { warp_products().commit(lane_index(), MVF_HERE); }
MVF_OUT_OF_LINE inline void wait_products(size_t left, const emulated::Place& place) {
  emulated::Sm90Block& block = sm90_block();
  const unsigned quarter = block.self().index / emulated::kWarp % 4;
  int nothing = 0;
  block.collective("wgmma_wait", place, nothing,
                   [&](const auto&) { warp_products().wait(left, quarter, block.window, place); });
}
template <int kLeft>
void wgmma_wait(MVF_PLACE) {
  wait_products(kLeft, MVF_HERE);
}
template <int kCount>
void keep(float (&)[kCount]) {}
template <int kSteps>
void keep(uint32_t (&)[kSteps][4]) {}

MVF_OUT_OF_LINE inline void issue_product(const emulated::ProductRequest& request, float* sums, const uint32_t* left,
                                          const emulated::Place& place) {
  emulated::Sm90Block& block = sm90_block();
  const unsigned lane = lane_index(), quarter = block.self().index / emulated::kWarp % 4;
  if (lane == 0) {
    block.device.counts.wgmma_macs += static_cast<uint64_t>(16 * 16 * request.n);
    block.device.counts.wgmma_clocks += static_cast<uint64_t>(request.n / 8);
  }
  const bool at_once = lane == emulated::kWarp - 1 && block.cluster.random() % 2 == 0;
  warp_products().issue(lane, quarter, block.window, request, sums, left, place, at_once,
                        [&](size_t at) { block.expect_fenced(at, 16, "wgmma", place); });
}

template <class T>
constexpr bool kIsBFloat16 = false;
template <>
inline constexpr bool kIsBFloat16<BFloat16> = true;

template <class T, int kN>
struct Wgmma {
  static_assert(kN % 8 == 0 && kN >= 8 && kN <= 256, "N of wgmma");

  template <int kTransA = 0, int kTransB = 0>
  static void ss(float (&d)[kN / 2], uint64_t a, uint64_t b, int add, MVF_PLACE) {
    issue_product({a, b, kN, add, kIsBFloat16<T>, false, kTransA != 0, kTransB != 0}, d, nullptr, MVF_HERE);
  }
  template <int kTransB = 0>
  static void rs(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b, int add, MVF_PLACE) {
    issue_product({0, b, kN, add, kIsBFloat16<T>, true, false, kTransB != 0}, d, a, MVF_HERE);
  }
};

}  // namespace mobilevit_fast::cuda
