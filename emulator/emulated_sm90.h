// The emulated side of sm90/device_sm90.h and sm90/wgmma.h, and the launch of sm90/launch_sm90.h.
#pragma once

#include "cuda/runtime.h"
#include "emulated_barriers.h"
#include "emulated_copies.h"
#include "emulated_halves.h"
#include "emulated_shared.h"
#include "emulated_wgmma.h"

namespace mobilevit_fast::emulator {

// Registers that the launch gives a thread: those asked for, or what one block leaves, in whole warpgroups.
inline int launch_registers(int asked, unsigned threads) {
  if (asked > 0) return asked;
  return std::min(255, static_cast<int>((64u << 10) / ((threads + 127) / 128 * 128) / 8 * 8));
}

inline void launch_sm90(Device& device, unsigned blocks, unsigned cluster, unsigned threads, size_t shared_bytes,
                        int registers, const std::function<void()>& kernel) {
  if (cluster < 1 || cluster > 16 || blocks % cluster != 0) {
    throw Error("expected blocks in clusters of 1 to 16, got " + std::to_string(blocks) + " by " +
                std::to_string(cluster));
  }
  if (shared_bytes > kMaxShared) {
    throw Error("shared memory: expected at most " + std::to_string(kMaxShared) + " bytes of a block, got " +
                std::to_string(shared_bytes));
  }
  if (registers * static_cast<int>((threads + 127) / 128 * 128) > 64 << 10) {
    throw Error("registers: expected at most 65536 of a block, got " + std::to_string(registers) + " of each of " +
                std::to_string(threads) + " threads");
  }
  for (unsigned first = 0; first < blocks; first += cluster) {
    Cluster(device, first, cluster, blocks, threads, shared_bytes, launch_registers(registers, threads)).run(kernel);
  }
}

}  // namespace mobilevit_fast::emulator

namespace mobilevit_fast::cuda {

template <class Kernel>
cudaError_t emulated_launch_sm90(const typename Kernel::Params& params, unsigned threads = Kernel::kThreads) {
  emulator::Device device(emulator::Log::get().options);
  if (device.options.idle) return cudaSuccess;
  Kernel::arrays(params, [&](const char* name, const void* data, int64_t bytes) { device.add(name, data, bytes); });
  const unsigned blocks = static_cast<unsigned>(Kernel::blocks(params));
  const size_t shared_bytes = static_cast<size_t>(Kernel::shared_bytes(params));
  emulator::launch_sm90(device, blocks, Kernel::kCluster, threads, shared_bytes, Kernel::kRegisters,
                        [&] { Kernel::run(params); });
  emulator::Log::get().add(typeid(Kernel).name(), blocks, threads, shared_bytes, device);
  return cudaSuccess;
}

}  // namespace mobilevit_fast::cuda
