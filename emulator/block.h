// A block of threads: runs them as fibers and watches barriers, warps, memory and bank conflicts.
//
// Between barriers the threads of a block run in an order that the seed shuffles: a result that moves with the seed is
// a missing barrier. Shared arrays are heap blocks of their own, filled with not-a-number; so is what cp.async has not
// brought yet. Whatever can never go on is an Error that names threads, lines and barriers.
#pragma once

#include <random>
#include <set>
#include <sstream>
#include <tuple>

#include "emulator.h"

namespace mobilevit_fast::emulator {

enum class State { ready, waiting, in_warp, ended };

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
  bool sees_global = true;  // beside constants: a dependent launch has to wait for that
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
        random_(device.options.seed * 7919u + index),
        warps_(threads / kWarp) {
    if (threads == 0 || threads % kWarp != 0 || threads > 1024) {
      throw Error("expected whole warps, at most 1024 threads, got " + std::to_string(threads));
    }
    for (unsigned i = 0; i < threads; ++i) threads_[i].index = i;
  }
  virtual ~Block() = default;

  static Block& running() { return *current(); }

  void run(const std::function<void()>& kernel) {
    start(kernel);
    while (run_ready()) {
    }
    if (!ended()) throw Error("deadlock: " + waiting());
    finish_banks();
  }

  void start(const std::function<void()>& kernel) {
    for (Thread& thread : threads_) {
      thread.fiber = std::make_unique<Fiber>(kernel);
      ready_.push_back(&thread);
    }
  }

  // Runs every thread that can run until it waits; whether there was one.
  bool run_ready() {
    if (ready_.empty()) return false;
    struct Reset {
      Block* block;
      ~Reset() { current() = block; }
    } reset{std::exchange(current(), this)};
    order_.clear();
    order_.swap(ready_);
    std::shuffle(order_.begin(), order_.end(), random_);
    hold_back(order_);
    for (Thread* thread : order_) {
      self_ = thread;
      thread->fiber->resume();
      if (thread->fiber->ended()) {
        thread->state = State::ended, thread->what = "its end", ++ended_;
        end(*thread);
      }
    }
    return true;
  }

  bool ended() const { return ended_ == threads_.size(); }
  Thread& self() { return *self_; }
  unsigned thread_count() const { return static_cast<unsigned>(threads_.size()); }

  // The calling thread waits until another one wakes it.
  void wait(const char* what, const Place& place) {
    Thread& thread = self();
    thread.state = State::waiting, thread.what = what, thread.place = place;
    Fiber::pause();
  }
  void wake(Thread& thread) {
    thread.state = State::ready;
    ready_.push_back(&thread);
  }

  MVF_OUT_OF_LINE void barrier(const Place& place) {
    Thread& thread = self();
    ++device.counts.waits;
    thread.what = "barrier", thread.place = place;
    if (!at_barrier_.empty() && !(at_barrier_.front()->place == place)) {
      throw Error("divergent barrier: " + thread.text() + ", " + at_barrier_.front()->text());
    }
    at_barrier_.push_back(&thread);
    thread.state = State::waiting;
    if (at_barrier_.size() == threads_.size()) {
      for (Thread* other : at_barrier_) wake(*other);
      at_barrier_.clear();
    }
    Fiber::pause();
  }

  // What all 32 lanes of a warp do together: the last one to come does it for all, given the payloads by lane.
  template <class Payload, class Perform>
  void collective(const char* what, const Place& place, Payload& payload, Perform perform) {
    Thread& thread = self();
    ++device.counts.instructions;
    thread.state = State::in_warp, thread.what = what, thread.place = place, thread.payload = &payload;
    Warp& warp = warps_[thread.index / kWarp];
    if (warp.arrived == 0) {
      warp.first = &thread;
    } else if (!Place::same(warp.first->what, what) || !(warp.first->place == place)) {
      throw Error("divergent warp: " + thread.text() + ", " + warp.first->text());
    }
    if (++warp.arrived < kWarp) {
      Fiber::pause();
      return;
    }
    warp.arrived = 0;
    Thread* const lanes = &threads_[thread.index / kWarp * kWarp];
    std::array<Payload*, kWarp> payloads;
    for (unsigned lane = 0; lane < kWarp; ++lane) payloads[lane] = static_cast<Payload*>(lanes[lane].payload);
    perform(payloads);
    for (unsigned lane = 0; lane < kWarp; ++lane) wake(lanes[lane]);
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
    ++device.counts.instructions;
    if (!self().sees_global && !array.constant) {
      throw Error("global memory: " + array.name + " before grid_wait at " + place.text());
    }
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

  // The same of a load that the compiler may move, even to before grid_wait.
  MVF_OUT_OF_LINE Array& touch_unchanging(const void* address, size_t bytes, const Place& place) {
    Array& array = touch_global(address, bytes, place);
    if (!array.constant) {
      throw Error("global memory: " + array.name + " by load_global at " + place.text() +
                  ", which may be moved to before grid_wait: expected load_written or load_result");
    }
    return array;
  }

  // An access of the calling thread to shared memory, for the count of wavefronts.
  MVF_OUT_OF_LINE void touch_shared(const void* address, size_t bytes, const Place& place) {
    if (!device.options.watch_banks) return;
    const char* at = static_cast<const char*>(address);
    for (const SharedArray& array : arrays_) {
      if (at >= array.data.get() && at + bytes <= array.data.get() + array.bytes) {
        watch(array.offset + static_cast<size_t>(at - array.data.get()), bytes, place);
        return;
      }
    }
    if (const char* window = shared_window(at, bytes)) return watch(static_cast<size_t>(at - window), bytes, place);
    throw Error("shared memory: " + std::to_string(bytes) + " bytes outside of every array at " + place.text());
  }

  // One of each kind of waiting.
  virtual std::string waiting() const {
    std::ostringstream text;
    const Thread* last = nullptr;
    int shown = 0;
    for (const Thread& thread : threads_) {
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

  Device& device;
  const unsigned index, blocks;

 protected:
  virtual void end(Thread&) {}
  // Takes out of those about to run, in their order, those that shall run later.
  virtual void hold_back(std::vector<Thread*>&) {}
  // The beginning of shared memory that is one array, if this lies in it.
  virtual const char* shared_window(const char*, size_t) { return nullptr; }

  void watch(size_t offset, size_t bytes, const Place& place) {
    const unsigned thread = self().index;
    const size_t turn = turns_[{thread, place.line, place.file}]++;
    accesses_[{thread / kWarp, turn, place.line, place.file}].push_back({thread % kWarp, offset, bytes});
  }

  const size_t shared_bytes_;
  std::vector<Thread> threads_;
  std::vector<Thread*> ready_;
  std::mt19937 random_;

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
  struct Warp {
    unsigned arrived = 0;
    Thread* first = nullptr;
  };

  static Block*& current() {
    thread_local Block* block = nullptr;
    return block;
  }

  Thread* self_ = nullptr;
  size_t ended_ = 0, shared_used_ = 0;
  std::vector<Thread*> order_, at_barrier_;
  std::vector<Warp> warps_;
  std::vector<SharedArray> arrays_;
  std::map<std::tuple<unsigned, int, const char*>, size_t> turns_;
  std::map<std::tuple<unsigned, size_t, int, const char*>, std::set<size_t>> sectors_;
  std::map<std::tuple<unsigned, size_t, int, const char*>, std::vector<Access>> accesses_;
};

// Runs all blocks of a launch.
inline void launch(Device& device, unsigned blocks, unsigned threads, size_t shared_bytes,
                   const std::function<void()>& kernel) {
  for (unsigned i = 0; i < blocks; ++i) Block(device, i, blocks, threads, shared_bytes).run(kernel);
}

}  // namespace mobilevit_fast::emulator
