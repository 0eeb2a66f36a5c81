// Starts a kernel on a stream, or, with MVF_EMULATED, runs it.
#pragma once

#include <type_traits>

#include "device.h"
#include "runtime.h"

namespace mobilevit_fast::cuda {

#if defined(MVF_EMULATED)

template <class Kernel>
cudaError_t launch(const typename Kernel::Params& params, cudaStream_t) {
  emulator::Device device(emulator::Log::get().options);
  Kernel::arrays(params, [&](const char* name, const void* data, int64_t bytes) { device.add(name, data, bytes); });
  const unsigned blocks = Kernel::blocks(params);
  const size_t shared_bytes = Kernel::shared_bytes(params);
  emulator::launch(device, blocks, Kernel::kThreads, shared_bytes, [&] { Kernel::run(params); });
  emulator::Log::get().add(typeid(Kernel).name(), blocks, Kernel::kThreads, shared_bytes, device);
  return cudaSuccess;
}

#else

// Blocks that a multiprocessor has registers for: what a kernel asks for as its kResident, or one.
template <class Kernel, class = void>
constexpr int kResident = 1;
template <class Kernel>
constexpr int kResident<Kernel, std::void_t<decltype(Kernel::kResident)> > = Kernel::kResident;

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, kResident<Kernel>)
    start(const __grid_constant__ typename Kernel::Params params) {
  Kernel::run(params);
}

template <class Kernel>
cudaError_t launch(const typename Kernel::Params& params, cudaStream_t stream) {
  const size_t bytes = Kernel::shared_bytes(params);
  const cudaError_t allowed =
      cudaFuncSetAttribute(start<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (allowed != cudaSuccess) return allowed;
  typename Kernel::Params copy = params;
  void* arguments[] = {&copy};
  return cudaLaunchKernel(start<Kernel>, Kernel::blocks(params), Kernel::kThreads, arguments, bytes, stream);
}

#endif

}  // namespace mobilevit_fast::cuda
