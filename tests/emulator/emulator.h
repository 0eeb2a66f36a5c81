// Runs a kernel's threads as fibers, block after block, and watches them: barriers, warps, memory, counts.
//
// Between barriers the threads of a block run in an order that the seed shuffles: a result that moves with the seed is
// a missing barrier. Shared arrays are heap blocks of their own, filled with not-a-number; so is what cp.async has not
// brought yet. Whatever can never go on is an Error that names threads, lines and barriers.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <sstream>
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
};

struct Counts {
  uint64_t products = 0;      // instructions of the matrix unit, of a warp each
  uint64_t exponentials = 0;  // of the special-function unit, of a thread each
  uint64_t wavefronts = 0;    // that shared memory needs for the accesses of warps
  uint64_t conflicts = 0;     // wavefronts beyond those that the bytes need
  uint64_t sectors = 0;       // of 32 bytes of global memory, that the loads and stores of warps ask for
};

struct Options {
  uint32_t seed = 0;
  bool watch_banks = false;  // count wavefronts and sectors, which takes time
};

class Block;

// A launch: global arrays, and what all blocks did.
class Device {
 public:
  explicit Device(Options given) : options(given) {}

  void add(std::string name, const void* begin, size_t bytes) {
    arrays.push_back({std::move(name), static_cast<const char*>(begin), bytes});
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

enum class State { ready, at_barrier, in_warp, ended };

struct Copy {
  char* target;
  const char* source;
  size_t bytes;  // of the source; the rest of `room` becomes zero
  size_t room;
};

struct Thread {
  unsigned index = 0;
  State state = State::ready;
  const char* what = "";
  Place place{"", 0};
  void* payload = nullptr;  // of a collective
  size_t shared_arrays = 0;
  std::vector<Copy> uncommitted;
  std::deque<std::vector<Copy>> groups;
  std::unique_ptr<Fiber> fiber;

  std::string text() const { return "thread " + std::to_string(index) + " at " + what + " (" + place.text() + ")"; }
};

// One block of threads. The thread that runs finds it through `Block::running()`.
class Block {
 public:
  Block(Device& device, unsigned index, unsigned blocks, unsigned threads, size_t shared_bytes)
      : device(device),
        index(index),
        blocks(blocks),
        shared_bytes_(shared_bytes),
        threads_(threads),
        random_(device.options.seed * 7919u + index) {
    if (threads == 0 || threads % kWarp != 0 || threads > 1024) {
      throw Error("expected whole warps, at most 1024 threads, got " + std::to_string(threads));
    }
  }

  static Block& running() { return *current(); }

  void run(const std::function<void()>& kernel) {
    Block* const before = current();
    current() = this;
    struct Reset {
      Block* block;
      ~Reset() { current() = block; }
    } reset{before};
    for (unsigned i = 0; i < threads_.size(); ++i) {
      threads_[i].index = i;
      threads_[i].fiber = std::make_unique<Fiber>(kernel);
    }
    while (step()) {
    }
    finish_banks();
  }

  Thread& self() { return *self_; }
  unsigned thread_count() const { return static_cast<unsigned>(threads_.size()); }

  MVF_OUT_OF_LINE void barrier(const Place& place) {
    Thread& thread = self();
    thread.state = State::at_barrier, thread.what = "barrier", thread.place = place;
    ++arrived_;
    for (const Thread& other : threads_) {
      if (other.state == State::at_barrier && !(other.place == place)) {
        throw Error("divergent barrier: " + thread.text() + ", " + other.text());
      }
    }
    if (arrived_ == threads_.size()) {
      arrived_ = 0;
      for (Thread& other : threads_) other.state = State::ready;
    }
    Fiber::pause();
  }

  // What all 32 lanes of a warp do together: the last one to come does it for all, given the payloads by lane.
  template <class Payload, class Perform>
  void collective(const char* what, const Place& place, Payload& payload, Perform perform) {
    Thread& thread = self();
    thread.state = State::in_warp, thread.what = what, thread.place = place, thread.payload = &payload;
    Thread* const warp = &threads_[thread.index / kWarp * kWarp];
    bool all = true;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if (warp[lane].state != State::in_warp) {
        all = false;
      } else if (!Place::same(warp[lane].what, what) || !(warp[lane].place == place)) {
        throw Error("divergent warp: " + thread.text() + ", " + warp[lane].text());
      }
    }
    if (!all) {
      Fiber::pause();
      return;
    }
    std::array<Payload*, kWarp> payloads;
    for (unsigned lane = 0; lane < kWarp; ++lane) payloads[lane] = static_cast<Payload*>(warp[lane].payload);
    perform(payloads);
    for (unsigned lane = 0; lane < kWarp; ++lane) warp[lane].state = State::ready;
    Fiber::pause();  // the others have their turn in any order
  }

  // The next shared array of the calling thread: the same for all threads of the block.
  char* shared_array(size_t bytes) {
    const size_t number = self().shared_arrays++;
    if (number == arrays_.size()) {
      SharedArray array{nullptr, bytes, shared_used_};
      shared_used_ += (bytes + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
      if (shared_used_ > shared_bytes_) {
        throw Error("shared memory: expected at most the " + std::to_string(shared_bytes_) +
                    " bytes of the launch, got " + std::to_string(shared_used_));
      }
      array.data.reset(new char[bytes]);
      std::memset(array.data.get(), 0xff, bytes);
      arrays_.push_back(std::move(array));
    }
    if (number > arrays_.size() || arrays_[number].bytes != bytes) {
      throw Error("shared memory: threads take arrays of different sizes");
    }
    return arrays_[number].data.get();
  }

  MVF_OUT_OF_LINE void copy_async(void* target, const void* source, size_t bytes, size_t room, const Place& place) {
    if (bytes > 0) touch_global(source, bytes, place).read += bytes;
    if (reinterpret_cast<uintptr_t>(target) % room != 0) throw Error("cp.async: misaligned target at " + place.text());
    if (bytes > 0 && reinterpret_cast<uintptr_t>(source) % room != 0) {
      throw Error("cp.async: misaligned source at " + place.text());
    }
    touch_shared(target, room, place);
    std::memset(target, 0xff, room);
    self().uncommitted.push_back({static_cast<char*>(target), static_cast<const char*>(source), bytes, room});
  }

  void commit_async() {
    self().groups.push_back(std::move(self().uncommitted));
    self().uncommitted.clear();
  }

  // All but the last `pending` groups of the thread arrive.
  void wait_async(size_t pending) {
    auto& groups = self().groups;
    for (; groups.size() > pending; groups.pop_front()) {
      for (const Copy& copy : groups.front()) {
        std::memcpy(copy.target, copy.source, copy.bytes);
        std::memset(copy.target + copy.bytes, 0, copy.room - copy.bytes);
      }
    }
  }

  // The array of an access of the calling thread to global memory.
  MVF_OUT_OF_LINE Array& touch_global(const void* address, size_t bytes, const Place& place) {
    Array& array = device.array_of(address, bytes, place);
    if (device.options.watch_banks) {
      const unsigned thread = self().index;
      const size_t turn = turns_[{thread, place.line, place.file}]++;
      const size_t first = reinterpret_cast<uintptr_t>(address) / kSector;
      const size_t last = (reinterpret_cast<uintptr_t>(address) + bytes - 1) / kSector;
      auto& sectors = sectors_[{thread / kWarp, turn, place.line, place.file}];
      for (size_t sector = first; sector <= last; ++sector) sectors.insert(sector);
    }
    return array;
  }

  // An access of the calling thread to shared memory, for the count of wavefronts.
  MVF_OUT_OF_LINE void touch_shared(const void* address, size_t bytes, const Place& place) {
    if (!device.options.watch_banks) return;
    const char* at = static_cast<const char*>(address);
    for (const SharedArray& array : arrays_) {
      if (at >= array.data.get() && at + bytes <= array.data.get() + array.bytes) {
        const size_t offset = array.offset + static_cast<size_t>(at - array.data.get());
        const unsigned thread = self().index;
        const size_t turn = turns_[{thread, place.line, place.file}]++;
        accesses_[{thread / kWarp, turn, place.line, place.file}].push_back({thread % kWarp, offset, bytes});
        return;
      }
    }
    throw Error("shared memory: " + std::to_string(bytes) + " bytes outside of every array at " + place.text());
  }

  Device& device;
  const unsigned index, blocks;

 private:
  static constexpr size_t kSharedAlignment = 128, kSector = 32;

  struct SharedArray {
    std::unique_ptr<char[]> data;
    size_t bytes, offset;
  };
  struct Access {
    unsigned lane;
    size_t offset, bytes;
  };

  static Block*& current() {
    thread_local Block* block = nullptr;
    return block;
  }

  // Runs every thread that can run once; whether there is anything left to run.
  bool step() {
    std::vector<unsigned> order;
    for (const Thread& thread : threads_) {
      if (thread.state == State::ready) order.push_back(thread.index);
    }
    if (order.empty()) {
      const auto waits = [](const Thread& thread) { return thread.state != State::ended; };
      if (std::none_of(threads_.begin(), threads_.end(), waits)) return false;
      throw Error(deadlock());
    }
    std::shuffle(order.begin(), order.end(), random_);
    for (const unsigned i : order) {
      Thread& thread = threads_[i];
      self_ = &thread;
      thread.fiber->resume();
      if (thread.fiber->ended()) thread.state = State::ended, thread.what = "its end";
    }
    return true;
  }

  std::string deadlock() const {
    std::ostringstream text;
    text << "deadlock: ";
    const Thread* last = nullptr;
    int shown = 0;
    for (const Thread& thread : threads_) {  // one of each kind of waiting
      if (last != nullptr && last->state == thread.state && last->place == thread.place) continue;
      last = &thread;
      if (++shown <= 8) text << (shown > 1 ? ", " : "") << thread.text();
    }
    return text.str();
  }

  // A wavefront brings one 4-byte word of each of 32 banks. Accesses of 8 and 16 bytes go by half and quarter warps.
  void finish_banks() {
    for (const auto& [key, sectors] : sectors_) device.counts.sectors += sectors.size();
    for (const auto& [key, accesses] : accesses_) {
      const size_t together = std::min<size_t>(kWarp, kWarp * 4 / accesses.front().bytes);  // lanes
      std::map<size_t, std::array<std::vector<size_t>, kWarp>> parts;  // words by bank, of each part of a warp
      for (const Access& access : accesses) {
        auto& banks = parts[access.lane / together];
        for (size_t word = access.offset / 4; word * 4 < access.offset + access.bytes; ++word) {
          auto& bank = banks[word % kWarp];
          if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
        }
      }
      for (const auto& [part, banks] : parts) {
        size_t most = 1;
        for (const auto& bank : banks) most = std::max(most, bank.size());
        device.counts.wavefronts += most;
        device.counts.conflicts += most - 1;
      }
    }
  }

  const size_t shared_bytes_;
  std::vector<Thread> threads_;
  std::mt19937 random_;
  Thread* self_ = nullptr;
  size_t arrived_ = 0, shared_used_ = 0;
  std::vector<SharedArray> arrays_;
  std::map<std::tuple<unsigned, int, const char*>, size_t> turns_;
  std::map<std::tuple<unsigned, size_t, int, const char*>, std::set<size_t>> sectors_;
  std::map<std::tuple<unsigned, size_t, int, const char*>, std::vector<Access>> accesses_;
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
  int capability = 80;  // whose kernels run: 90 for those of csrc/cuda/sm90 too
  std::vector<Launch> launches;
};

// Runs all blocks of a launch.
inline void launch(Device& device, unsigned blocks, unsigned threads, size_t shared_bytes,
                   const std::function<void()>& kernel) {
  for (unsigned i = 0; i < blocks; ++i) Block(device, i, blocks, threads, shared_bytes).run(kernel);
}

}  // namespace mobilevit_fast::emulator
