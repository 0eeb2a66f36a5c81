// The blocks of a cluster in turns, and what they have in flight.
//
// Seeds choose how blocks, warps and arrivals mix: seed 0 lets things land when nothing else can go on, others sooner
// or at once; some leave warps behind.
#pragma once

#include "sm90_block.h"

namespace mobilevit_fast::emulator {

class Cluster {
 public:
  Cluster(Device& device, unsigned first, unsigned size, unsigned blocks, unsigned threads, size_t shared_bytes,
          int registers)
      : random(device.options.seed * 104729u + first), seed_(device.options.seed), threads_(size * threads) {
    for (unsigned rank = 0; rank < size; ++rank) {
      blocks_.push_back(
          std::make_unique<Sm90Block>(*this, device, first + rank, rank, blocks, threads, shared_bytes, registers));
    }
  }

  void run(const std::function<void()>& kernel) {
    std::vector<Sm90Block*> order;
    for (const auto& block : blocks_) block->start(kernel), order.push_back(block.get());
    constexpr unsigned kLandings[] = {0, 64, 8, 1024}, kTurns[] = {1, 8, 1, 64};  // of 1024; rounds of a block
    const unsigned landings = kLandings[seed_ % 4], turns = kTurns[seed_ / 2 % 4];
    for (bool going = true; going;) {
      going = false;
      std::shuffle(order.begin(), order.end(), random);
      for (Sm90Block* block : order) {
        for (unsigned turn = random() % turns + 1; turn > 0 && block->run_ready(); --turn) going = true;
      }
      for (size_t i = 0; landings > 0 && i < flights_.size();) {
        if (random() % 1024 < landings) {
          land(i), going = true;
        } else {
          ++i;
        }
      }
      if (!going && !flights_.empty()) land(random() % flights_.size()), going = true;
    }
    for (const auto& block : blocks_) {
      if (!block->ended()) throw Error("deadlock: " + waiting());
      block->check_end();
      block->finish_banks();
    }
  }

  // Something that happens later, and needs the shared memory of a block, or of two.
  void fly(const Place& place, const Sm90Block& one, const Sm90Block& other, std::function<void()> landing) {
    flights_.push_back({place, &one, &other, std::move(landing)});
  }
  // The block of an address of the cluster, which has to be running.
  Sm90Block& block_of(uint32_t address, const Place& place) {
    const size_t rank = address >> kRankBit;
    if (rank >= blocks_.size()) {
      throw Error("expected an address in a cluster of " + std::to_string(blocks_.size()) +
                  " blocks, got one of block " + std::to_string(rank) + " at " + place.text());
    }
    Sm90Block& block = *blocks_[rank];
    if (!block.started || block.ended()) {
      throw Error("shared memory of block " + std::to_string(rank) + " of the cluster, which has " +
                  (block.started ? "ended" : "not begun") + ", at " + place.text());
    }
    return block;
  }
  unsigned size() const { return static_cast<unsigned>(blocks_.size()); }

  void arrive(const Place& place) {
    Sm90Thread& more = Sm90Block::running().more();
    if (more.cluster_arrivals > phase_) throw Error("cluster_arrive twice without cluster_wait at " + place.text());
    ++more.cluster_arrivals, ++arrived_;
    complete();
  }
  void wait(const Place& place) {
    Sm90Block& block = Sm90Block::running();
    if (block.more().cluster_arrivals == waited_[&block.self()]) {
      throw Error("cluster_wait without cluster_arrive at " + place.text());
    }
    const int phase = waited_[&block.self()]++;
    ++block.device.counts.waits;
    if (phase_ > phase) return;
    waiters_.push_back({&block, &block.self()});
    block.wait("cluster_wait", place);
  }
  // A thread that ends is waited for no longer.
  void end_thread(const Sm90Block& block, const Thread& thread) {
    --threads_;
    if (block.cluster_arrivals(thread) > phase_) --arrived_;
    complete();
    if (!block.ended()) return;
    for (const Flight& flight : flights_) {
      if (flight.one == &block || flight.other == &block) {
        throw Error("a block ends while what needs its shared memory, from " + flight.place.text() + ", is in flight");
      }
    }
  }

  std::mt19937 random;

 private:
  struct Flight {
    Place place;
    const Sm90Block *one, *other;
    std::function<void()> landing;
  };
  struct Waiter {
    Sm90Block* block;
    Thread* thread;
  };

  void complete() {
    if (arrived_ < threads_ || threads_ == 0) return;
    arrived_ = 0, ++phase_;
    for (const Waiter& waiter : waiters_) waiter.block->wake(*waiter.thread);
    waiters_.clear();
  }
  void land(size_t i) {
    const Flight flight = std::move(flights_[i]);
    flights_[i] = std::move(flights_.back());
    flights_.pop_back();
    flight.landing();
  }
  std::string waiting() const {
    std::string text;
    for (const auto& block : blocks_) {
      if (block->ended()) continue;
      if (size() > 1) text += (text.empty() ? "block " : "; block ") + std::to_string(block->rank) + ": ";
      text += block->waiting();
    }
    return text;
  }

  const uint32_t seed_;
  std::vector<std::unique_ptr<Sm90Block>> blocks_;
  std::vector<Flight> flights_;
  unsigned threads_, arrived_ = 0;
  int phase_ = 0;
  std::unordered_map<const Thread*, int> waited_;
  std::vector<Waiter> waiters_;
};

inline int Sm90Block::cluster_arrivals(const Thread& thread) const { return more_[thread.index].cluster_arrivals; }

inline void Sm90Block::end(Thread& thread) {
  const WarpProducts& issued = products[thread.index / kWarp];
  if (!issued.idle()) {
    throw Error("thread " + std::to_string(thread.index) + " ends before wgmma_wait for the product at " +
                issued.oldest().text());
  }
  const auto copies = [](const std::vector<Copy>& group) { return !group.empty(); };
  if (copies(thread.uncommitted) || std::any_of(thread.groups.begin(), thread.groups.end(), copies)) {
    throw Error("thread " + std::to_string(thread.index) + " ends before wait_async for its copies");
  }
  if (!more_[thread.index].stores.empty() || more_[thread.index].open_stores->stores > 0) {
    throw Error("thread " + std::to_string(thread.index) + " ends before store_bulk_wait for its stores");
  }
  cluster.end_thread(*this, thread);
}

// For some seeds half or three quarters of the warps rest for some rounds.
inline void Sm90Block::hold_back(std::vector<Thread*>& order) {
  started = true;
  const unsigned resting = device.options.seed / 3 % 3;
  if (resting == 0) return;
  if (rounds_++ % 16 == 0) {
    asleep_.resize(threads_.size() / kWarp);
    for (size_t i = 0; i < asleep_.size(); ++i) asleep_[i] = random_() % 4 < (resting == 1 ? 2u : 3u);
  }
  const auto awake = [&](const Thread* thread) { return !asleep_[thread->index / kWarp]; };
  if (std::none_of(order.begin(), order.end(), awake)) return;
  const auto rest = std::stable_partition(order.begin(), order.end(), awake);
  ready_.insert(ready_.end(), rest, order.end());
  order.erase(rest, order.end());
}

inline std::string Sm90Block::waiting() const {
  std::string text = Block::waiting();
  for (const auto& [at, barrier] : barriers_) {
    if (barrier.waiters.empty()) continue;
    text += ", barrier (" + barrier.made.text() + ", byte " + std::to_string(at) + ") in phase " +
            std::to_string(barrier.phase) + " misses " + std::to_string(barrier.pending) + " arrivals and " +
            std::to_string(barrier.bytes) + " bytes";
  }
  for (const Wanted& wanted : wanted_) {
    text += ", take_registers<" + std::to_string(wanted.registers) + "> finds " + std::to_string(free_registers_) +
            " registers a thread of a warp beyond the " + std::to_string(registers_[wanted.warp]) + " it has";
  }
  return text;
}

}  // namespace mobilevit_fast::emulator
