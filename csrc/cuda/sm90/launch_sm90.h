// Starts a kernel of compute capability 9.0 on a stream, or, with MVF_EMULATED, runs it.
//
// Such a kernel is a class as launch.h takes it, and has besides
//   kCluster    blocks of a cluster, by which `blocks` is divisible;
//   kRegisters  a thread's registers, or 0: as many as one block of kThreads leaves (then setmaxnreg works as well).
// It is started dependently: it may begin before the kernel before it on the stream has ended, so it calls grid_wait()
// before it touches any global memory but its packed weights, and grid_launch_dependents() as early as it likes.
// `Params` may hold TensorMaps: it stays where the constant bank has it, so `run` takes it by reference.
#pragma once

#include "cuda/launch.h"
#include "device_sm90.h"

namespace mobilevit_fast::cuda {

#if defined(MVF_EMULATED)

template <class Kernel>
cudaError_t launch_sm90(const typename Kernel::Params& params, cudaStream_t) {
  return emulated_launch_sm90<Kernel>(params);
}

#else

// Registers of a multiprocessor. A kernel with products of warpgroups is given them for whole warpgroups.
constexpr int kRegistersOfAProcessor = 1 << 16;

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, 1)
    start_sm90(const __grid_constant__ typename Kernel::Params params) {
  Kernel::run(params);
}
template <class Kernel>
__global__ void __maxnreg__(Kernel::kRegisters)
    start_sm90_registers(const __grid_constant__ typename Kernel::Params params) {
  Kernel::run(params);
}

template <class Kernel>
cudaError_t launch_sm90(const typename Kernel::Params& params, cudaStream_t stream) {
  static_assert((Kernel::kThreads + 127) / 128 * 128 * Kernel::kRegisters <= kRegistersOfAProcessor,
                "a block of so many registers would not start");
  void (*kernel)(typename Kernel::Params);
  if constexpr (Kernel::kRegisters > 0) {
    kernel = start_sm90_registers<Kernel>;
  } else {
    kernel = start_sm90<Kernel>;
  }
  static Prepared prepared(reinterpret_cast<const void*>(kernel), Kernel::kCluster);
  typename Kernel::Params copy = params;
  return prepared.launch(static_cast<unsigned>(Kernel::blocks(params)), Kernel::kThreads, Kernel::shared_bytes(params),
                         &copy, stream);
}

#endif

}  // namespace mobilevit_fast::cuda
