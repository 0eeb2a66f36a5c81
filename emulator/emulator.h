// What an emulated launch knows and counts: global arrays, counts, and a log of the launches of bindings.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <utility>

#include "fibers.h"

namespace mobilevit_fast::emulator {

constexpr unsigned kWarp = 32;

// For what kernels call in many places: copies of it there would take the compiler minutes.
#define MVF_OUT_OF_LINE __attribute__((noinline))

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Where in a kernel's source something was asked for.
struct Place {
  const char* file;
  int line;

  bool operator==(const Place& other) const { return line == other.line && same(file, other.file); }
  static bool same(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }
  std::string text() const {
    const char* name = std::strrchr(file, '/');
    return std::string(name == nullptr ? file : name + 1) + ":" + std::to_string(line);
  }
};

// An array in global memory, and the bytes that went to and fro.
struct Array {
  std::string name;
  const char* begin;
  size_t bytes;
  uint64_t read = 0, written = 0;
  bool constant;  // written by no kernel: a dependent launch may read it before the one before it has ended
};

// Whether no kernel writes an array of this name: packed weights and what stands beside them.
inline bool is_constant(const std::string& name) {
  constexpr const char* kParts[] = {"packed", "weight", "scale", "shift", "bias", "piece", "stream", "pool", "project"};
  return name != "image_bias" && std::any_of(std::begin(kParts), std::end(kParts),
                                             [&](const char* part) { return name.find(part) != std::string::npos; });
}

struct Counts {
  uint64_t products = 0;      // instructions of the matrix unit, of a warp each
  uint64_t wgmma_macs = 0;    // multiply-adds of warpgroups' instructions of the matrix unit
  uint64_t wgmma_clocks = 0;  // cycles that these take, summed over a launch: N / 2 each
  uint64_t exponentials = 0;  // of the special-function unit, of a thread each
  uint64_t wavefronts = 0;    // that shared memory needs for the accesses of warps
  uint64_t conflicts = 0;     // wavefronts beyond those that the bytes need
  uint64_t sectors = 0;       // of 32 bytes of global memory, that the loads and stores of warps ask for
  // Of a thread each: loads, stores, copies, shuffles, matrices to and from registers, a warp's products and arithmetic
  // on pairs of float16; not warpgroups' products, and neither float32 nor addresses, which are plain C++ here.
  uint64_t instructions = 0;
  uint64_t waits = 0;  // of a thread each, for barriers of all kinds
};

struct Options {
  uint32_t seed = 0;
  bool watch_banks = false;  // count wavefronts and sectors, which takes time
  bool idle = false;         // launches do nothing: what is left of a call is the host's
};

// A launch: global arrays, and what all blocks did.
class Device {
 public:
  explicit Device(Options given) : options(given) {}

  void add(std::string name, const void* begin, size_t bytes) {
    const bool constant = is_constant(name);
    arrays.push_back({std::move(name), static_cast<const char*>(begin), bytes, 0, 0, constant});
  }

  MVF_OUT_OF_LINE Array& array_of(const void* address, size_t bytes, const Place& place) {
    const char* at = static_cast<const char*>(address);
    for (Array& array : arrays) {
      if (at >= array.begin && at + bytes <= array.begin + array.bytes) return array;
    }
    throw Error("global memory: " + std::to_string(bytes) + " bytes outside of every array at " + place.text());
  }

  Options options;
  std::vector<Array> arrays;
  Counts counts;
};

// What launches through bindings did, in their order, and the device that these see. A process has one.
struct Log {
  struct Launch {
    std::string kernel;  // as the compiler names its type
    unsigned blocks, threads;
    size_t shared_bytes;
    std::vector<Array> arrays;
    Counts counts;
  };

  static Log& get() {
    static Log log;
    return log;
  }
  void add(std::string kernel, unsigned blocks, unsigned threads, size_t shared, const Device& device) {
    launches.push_back({std::move(kernel), blocks, threads, shared, device.arrays, device.counts});
  }

  Options options;
  std::vector<int> tile;                           // instead of the one that would be chosen, in an operator's terms
  int processors = 132, shared_bytes = 227 << 10;  // of an H100
  int capability = 80;                             // whose kernels run: 90 for those of csrc/cuda/sm90 too
  std::vector<Launch> launches;
};

}  // namespace mobilevit_fast::emulator
