// The part of CUDA's runtime that launches and bindings use. With MVF_EMULATED it is a device that the emulator makes
// up: its numbers decide which tiles are chosen.
#pragma once

#if !defined(MVF_EMULATED)

#include <cuda_runtime.h>

#else

#include "device.h"

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
using cudaStream_t = void*;

inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "invalid value"; }

#endif

namespace mobilevit_fast::cuda {

// What decides about kernels and tiles.
struct Chip {
  int processors, shared_bytes;  // multiprocessors; shared memory that a block may have
  int capability;                // compute capability: 90 for 9.0

  size_t shared_memory() const { return static_cast<size_t>(shared_bytes); }
};

#if defined(MVF_EMULATED)

inline Chip current_chip() {
  const emulator::Log& log = emulator::Log::get();
  return {log.processors, log.shared_bytes, log.capability};
}

#else

// Of the current device. A thread asks when that changes: five questions at every call would be a few percent of it.
inline Chip current_chip() {
  thread_local int known = -1;
  thread_local Chip chip{};
  int device = 0;
  cudaGetDevice(&device);
  if (device == known) return chip;
  chip = {1, 48 << 10, 0};
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  chip.capability = 10 * major + minor;
  cudaDeviceGetAttribute(&chip.processors, cudaDevAttrMultiProcessorCount, device);
  cudaDeviceGetAttribute(&chip.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  known = device;
  return chip;
}

#endif

}  // namespace mobilevit_fast::cuda
