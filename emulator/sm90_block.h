// Blocks of a cluster that run together: their shared memory, mbarriers, named barriers, registers, and what is in
// flight, which lands at a moment that the seed chooses.
#pragma once

#include <unordered_map>

#include "block.h"
#include "sm90_products.h"
#include "sm90_window.h"

namespace mobilevit_fast::emulator {

class Cluster;

// An mbarrier. Phases count from 0; a wait names the parity of the one it means.
struct Barrier {
  Place made{"", 0};
  unsigned maker = 0, fences = 0;  // the thread that made it, and the fences of its own that it had passed
  int count = 0, pending = 0;
  int64_t bytes = 0;
  int phase = 0;
  bool seen = false, seen_before = true;  // whether a thread has waited for this phase, for the one before
  bool repeated = false;                  // whether a thread has waited again for the phase before
  std::string repeater;
  std::vector<int> last;  // the phase that each thread has waited for
  std::vector<Thread*> waiters;
};

// Stores from shared memory to global memory that a thread waits for together.
struct StoreGroup {
  int stores = 0;  // that have not read yet
  Thread* waiter = nullptr;
};

// What a thread has besides.
struct Sm90Thread {
  uint32_t fences = 0, init_fences = 0;
  int cluster_arrivals = 0;
  std::shared_ptr<StoreGroup> open_stores = std::make_shared<StoreGroup>();
  std::deque<std::shared_ptr<StoreGroup>> stores;
};

class Sm90Block : public Block {
 public:
  Sm90Block(Cluster& cluster, Device& device, unsigned index, unsigned rank, unsigned blocks, unsigned threads,
            size_t shared_bytes, int registers)
      : Block(device, index, blocks, threads, shared_bytes),
        cluster(cluster),
        rank(rank),
        window(rank, shared_bytes),
        products(threads / kWarp),
        more_(threads),
        registers_(threads / kWarp, registers) {
    for (Thread& thread : threads_) thread.sees_global = false;
  }

  static Sm90Block& running() { return static_cast<Sm90Block&>(Block::running()); }

  Sm90Thread& more() { return more_[self().index]; }

  // --- Shared memory ---

  // The place of an address in it; what the calling thread reads or writes there.
  char* place_of(uint32_t address, size_t bytes, size_t alignment, const Place& place) {
    return window.data() + window.offset(address, bytes, alignment, place);
  }
  MVF_OUT_OF_LINE void load(uint32_t address, void* to, size_t bytes, const Place& place) {
    const size_t at = window.offset(address, bytes, bytes, place);
    window.check_load(at, bytes, place);
    if (device.options.watch_banks) watch(at, bytes, place);
    std::memcpy(to, window.data() + at, bytes);
  }
  MVF_OUT_OF_LINE void store(uint32_t address, const void* from, size_t bytes, const Place& place) {
    const size_t at = window.offset(address, bytes, bytes, place);
    expect_no_barrier(at, bytes, place);
    window.check_store(at, bytes, place);
    window.stored(at, bytes, static_cast<uint16_t>(self().index), more().fences);
    if (device.options.watch_banks) watch(at, bytes, place);
    std::memcpy(window.data() + at, from, bytes);
  }
  // The asynchronous proxy is going to read it.
  void expect_fenced(size_t at, size_t bytes, const char* what, const Place& place) const {
    window.check_fenced(at, bytes, what, place, [&](uint16_t thread) {
      return thread == Window::kOtherBlocks ? all_fences_ : more_[thread].fences;
    });
  }
  void fence_async() { ++more().fences, ++all_fences_; }
  void stored_by_others(size_t at, size_t bytes) { window.stored(at, bytes, Window::kOtherBlocks, all_fences_); }
  void expect_no_barrier(size_t at, size_t bytes, const Place& place) const {
    if (barriers_.empty()) return;
    for (size_t slot = at / 8 * 8; slot < at + bytes; slot += 8) {
      if (has_barrier_[slot / 8]) throw Error("shared memory: a barrier is overwritten at " + place.text());
    }
  }

  // Others have a turn now and then, for some rounds: what waits for the calling thread may go on before it does.
  void give_way() {
    if (random_() % 4 != 0) return;
    for (unsigned rounds = random_() % 8 + 1; rounds > 0; --rounds) {
      wake(self());
      Fiber::pause();
    }
  }

  // --- mbarriers, by their place in shared memory ---

  void make_barrier(uint32_t address, int count, const Place& place) {
    const size_t at = window.offset(address, 8, 8, place);
    if (has_barrier_.empty()) has_barrier_.resize(window.bytes() / 8 + 1);
    if (has_barrier_[at / 8]) throw Error("barrier_init: there is a barrier already at " + place.text());
    if (count < 1) throw Error("barrier_init: expected arrivals, got " + std::to_string(count));
    window.check_store(at, 8, place);
    has_barrier_[at / 8] = true;
    Barrier& barrier = barriers_[at];
    barrier.made = place, barrier.maker = self().index, barrier.fences = more().init_fences;
    barrier.count = barrier.pending = count;
    barrier.last.assign(thread_count(), kNever);
  }
  Barrier& barrier_at(uint32_t address, const Place& place) {
    const auto found = barriers_.find(window.offset(address, 8, 8, place));
    if (found == barriers_.end()) throw Error("expected a barrier after its init at " + place.text());
    return found->second;
  }
  // Copies and other blocks may use it.
  void expect_init_fence(const Barrier& barrier, const Place& place) const {
    if (more_[barrier.maker].init_fences == barrier.fences) {
      throw Error("a barrier is used at " + place.text() + " without barrier_init_fence after its init at " +
                  barrier.made.text());
    }
  }
  void arrive(Barrier& barrier, const Place& place) {
    if (barrier.pending == 0) {
      throw Error("barrier (" + barrier.made.text() + "): more arrivals than its " + std::to_string(barrier.count) +
                  " at " + place.text() + " in phase " + std::to_string(barrier.phase));
    }
    --barrier.pending;
    complete(barrier);
  }
  void complete_bytes(Barrier& barrier, int64_t bytes) {
    barrier.bytes -= bytes;
    complete(barrier);
  }
  void wait_barrier(Barrier& barrier, int parity, const Place& place) {
    if (parity != 0 && parity != 1) throw Error("barrier_wait: expected a parity, got " + std::to_string(parity));
    ++device.counts.waits;
    int& last = barrier.last[self().index];
    const bool over = barrier.phase % 2 != parity;
    const int phase = over ? barrier.phase - 1 : barrier.phase;
    if (over && last == phase) barrier.repeated = true, barrier.repeater = repeated(place);
    last = phase;
    (over ? barrier.seen_before : barrier.seen) = true;
    if (over) return;
    barrier.waiters.push_back(&self());
    wait("barrier_wait", place);
    if (barrier.phase != phase + 1) {
      throw Error("barrier (" + barrier.made.text() + "): " + self().text() + " missed the end of phase " +
                  std::to_string(phase) + ", since the one after it has ended too");
    }
  }

  // --- Named barriers ---

  void named_barrier(int id, int threads, bool waits, const Place& place) {
    if (id < 1 || id > 15) throw Error("named barrier: expected 1 to 15, got " + std::to_string(id));
    if (threads < 1 || threads % static_cast<int>(kWarp) != 0) {
      throw Error("named barrier: expected whole warps, got " + std::to_string(threads) + " at " + place.text());
    }
    Named& named = named_[id];
    if (named.arrived.empty()) named.threads = threads;
    if (named.threads != threads) {
      throw Error("named barrier " + std::to_string(id) + ": expected " + std::to_string(named.threads) +
                  " threads as others do, got " + std::to_string(threads) + " at " + place.text());
    }
    const unsigned self_index = self().index;
    if (std::find(named.arrived.begin(), named.arrived.end(), self_index) != named.arrived.end()) {
      throw Error("named barrier " + std::to_string(id) + ": thread " + std::to_string(self_index) +
                  " arrives twice in one phase, at " + place.text());
    }
    named.arrived.push_back(self_index);
    if (waits) ++device.counts.waits;
    if (static_cast<int>(named.arrived.size()) == threads) {
      for (Thread* thread : named.waiters) wake(*thread);
      named = Named{};
      give_way();
    } else if (!waits) {
      give_way();
    } else {
      named.waiters.push_back(&self());
      wait("named barrier", place);
    }
  }

  // --- Registers ---

  void set_registers(int registers, bool more_of_them, const Place& place) {
    if (registers < 24 || registers > 256 || registers % 8 != 0) {
      throw Error("setmaxnreg: expected a multiple of 8 from 24 to 256, got " + std::to_string(registers));
    }
    int nothing = 0;
    const unsigned warp = self().index / kWarp;
    collective(more_of_them ? "take_registers" : "give_registers", place, nothing, [&](const auto&) {
      const int now = registers_[warp];
      if (more_of_them ? registers < now : registers > now) {
        throw Error("setmaxnreg: expected at " + std::string(more_of_them ? "least " : "most ") + std::to_string(now) +
                    " registers, which a thread has, got " + std::to_string(registers) + " at " + place.text());
      }
      if (more_of_them) {
        wanted_.push_back({warp, registers});
      } else {
        free_registers_ += now - registers, registers_[warp] = registers;
      }
      grant_registers();
    });
    while (registers_[warp] < registers) {
      wanting_.push_back(&self());
      wait("take_registers", place);
    }
  }

  std::string waiting() const override;
  int cluster_arrivals(const Thread& thread) const;

  Cluster& cluster;
  const unsigned rank;
  Window window;
  std::vector<WarpProducts> products;  // by warp
  bool started = false;

  // What the block must not leave behind.
  void check_end() const {
    for (size_t warp = 0; warp < products.size(); ++warp) {
      const size_t first = warp / 4 * 4;
      if (products[warp].issued() != products[first].issued() ||
          (products[warp].issued() > 0 && first + 4 > products.size())) {
        throw Error("wgmma: expected the same products of warps 4 n to 4 n + 3, got " +
                    std::to_string(products[first].issued()) + " of warp " + std::to_string(first) + ", " +
                    std::to_string(products[warp].issued()) + " of warp " + std::to_string(warp));
      }
    }
    for (const auto& [at, barrier] : barriers_) {
      if (barrier.bytes != 0) {
        throw Error("barrier (" + barrier.made.text() + "): the block ends while phase " +
                    std::to_string(barrier.phase) + " expects " + std::to_string(barrier.bytes) + " more bytes");
      }
    }
  }

 private:
  static constexpr int kNever = -2;

  struct Named {
    int threads = 0;
    std::vector<unsigned> arrived;
    std::vector<Thread*> waiters;
  };
  struct Wanted {
    unsigned warp;
    int registers;
  };

  std::string repeated(const Place& place) const {
    return "thread " + std::to_string(const_cast<Sm90Block*>(this)->self().index) + " at " + place.text();
  }

  void complete(Barrier& barrier) {
    if (barrier.pending != 0 || barrier.bytes != 0) return;
    if (!barrier.seen_before) {
      throw Error("barrier (" + barrier.made.text() + "): no thread has waited for phase " +
                  std::to_string(barrier.phase - 1) + ", and the one after it has ended");
    }
    if (barrier.repeated) {
      throw Error("barrier (" + barrier.made.text() + "): " + barrier.repeater + " waited a second time for phase " +
                  std::to_string(barrier.phase - 1) + ", and the barrier went on");
    }
    ++barrier.phase, barrier.pending = barrier.count;
    barrier.seen_before = barrier.seen, barrier.seen = false;
    for (Thread* thread : barrier.waiters) wake(*thread);
    barrier.waiters.clear();
  }

  void grant_registers() {
    for (size_t i = 0; i < wanted_.size();) {
      const int more = wanted_[i].registers - registers_[wanted_[i].warp];
      if (more > free_registers_) {
        ++i;
        continue;
      }
      free_registers_ -= more, registers_[wanted_[i].warp] = wanted_[i].registers;
      wanted_.erase(wanted_.begin() + static_cast<std::ptrdiff_t>(i));
    }
    for (Thread* thread : wanting_) wake(*thread);
    wanting_.clear();
  }

  void end(Thread& thread) override;
  void hold_back(std::vector<Thread*>& order) override;
  const char* shared_window(const char* at, size_t bytes) override {
    const char* begin = window.data();
    return at >= begin && at + bytes <= begin + window.bytes() ? begin : nullptr;
  }

  std::vector<Sm90Thread> more_;
  uint32_t all_fences_ = 0;
  std::unordered_map<size_t, Barrier> barriers_;
  std::vector<bool> has_barrier_;  // by 8 bytes
  std::array<Named, 16> named_;
  std::vector<int> registers_;  // of a thread, by warp
  int free_registers_ = 0;      // those that warps gave, in the registers of a warp's thread
  std::vector<Wanted> wanted_;
  std::vector<Thread*> wanting_;
  std::vector<bool> asleep_;
  int rounds_ = 0;
};

}  // namespace mobilevit_fast::emulator
