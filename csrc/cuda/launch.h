// Starts a kernel on a stream, or, with MVF_EMULATED, runs it.
//
// Compiled for compute capability 9.0 or later a kernel is started dependently: it may begin before the kernel before
// it on the stream, or in a graph, has ended, and waits for that where it starts: so a launch takes less.
#pragma once

#include <type_traits>

#include "device.h"
#include "runtime.h"

#if !defined(MVF_EMULATED)
#include <atomic>
#include <mutex>
#endif

namespace mobilevit_fast::cuda {

#if defined(MVF_EMULATED)

template <class Kernel>
cudaError_t launch(const typename Kernel::Params& params, cudaStream_t) {
  emulator::Device device(emulator::Log::get().options);
  if (device.options.idle) return cudaSuccess;
  Kernel::arrays(params, [&](const char* name, const void* data, int64_t bytes) { device.add(name, data, bytes); });
  const unsigned blocks = Kernel::blocks(params);
  const size_t shared_bytes = Kernel::shared_bytes(params);
  emulator::launch(device, blocks, Kernel::kThreads, shared_bytes, [&] { Kernel::run(params); });
  emulator::Log::get().add(typeid(Kernel).name(), blocks, Kernel::kThreads, shared_bytes, device);
  return cudaSuccess;
}

#else

// A kernel as the runtime knows it on each device: the shared memory that its blocks may have, which it is told when a
// block wants more, and whether it was compiled to wait for the kernel before.
class Prepared {
 public:
  explicit Prepared(const void* kernel, unsigned cluster = 1) : kernel_(kernel), cluster_(cluster) {}

  cudaError_t launch(unsigned blocks, unsigned threads, size_t bytes, void* params, cudaStream_t stream) {
    int device = 0;
    cudaError_t status = cudaGetDevice(&device);
    if (status != cudaSuccess) return status;
    State once;
    State& state = device < kMostDevices ? states_[device] : once;
    if (state.allowed.load(std::memory_order_acquire) < static_cast<int64_t>(bytes)) status = prepare(state, bytes);
    if (status != cudaSuccess) return status;
    const bool waits = state.waits.load(std::memory_order_relaxed);
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = waits ? 1 : 0;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim = {cluster_, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks, config.blockDim = threads, config.dynamicSmemBytes = bytes, config.stream = stream;
    config.attrs = attributes, config.numAttrs = cluster_ > 1 ? 2 : waits ? 1 : 0;
    void* arguments[] = {params};
    return cudaLaunchKernelExC(&config, kernel_, arguments);
  }

 private:
  static constexpr int kMostDevices = 64, kFirstToWait = 90, kPortableCluster = 8;

  struct State {
    std::atomic<int64_t> allowed{-1};
    std::atomic<bool> waits{false};
  };

  cudaError_t prepare(State& state, size_t bytes) {
    const std::lock_guard<std::mutex> alone(mutex_);
    if (state.allowed.load() >= static_cast<int64_t>(bytes)) return cudaSuccess;
    cudaFuncAttributes found{};
    cudaError_t status = cudaFuncGetAttributes(&found, kernel_);
    if (status == cudaSuccess) {
      status = cudaFuncSetAttribute(kernel_, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    }
    if (status == cudaSuccess && cluster_ > kPortableCluster) {
      status = cudaFuncSetAttribute(kernel_, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    }
    if (status != cudaSuccess) return status;
    state.waits.store(found.ptxVersion >= kFirstToWait);  // what code of earlier ones leaves out
    state.allowed.store(static_cast<int64_t>(bytes), std::memory_order_release);
    return cudaSuccess;
  }

  const void* kernel_;
  unsigned cluster_;
  std::mutex mutex_;
  State states_[kMostDevices];
};

// Blocks that a multiprocessor has registers for: what a kernel asks for as its kResident, or one.
template <class Kernel, class = void>
constexpr int kResident = 1;
template <class Kernel>
constexpr int kResident<Kernel, std::void_t<decltype(Kernel::kResident)> > = Kernel::kResident;

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, kResident<Kernel>)
    start(const __grid_constant__ typename Kernel::Params params) {
  grid_launch_dependents();
  grid_wait();
  Kernel::run(params);
}

template <class Kernel>
cudaError_t launch(const typename Kernel::Params& params, cudaStream_t stream, unsigned threads = Kernel::kThreads) {
  static Prepared prepared(reinterpret_cast<const void*>(start<Kernel>));
  typename Kernel::Params copy = params;
  return prepared.launch(Kernel::blocks(params), threads, Kernel::shared_bytes(params), &copy, stream);
}

#endif

}  // namespace mobilevit_fast::cuda
