// Shared memory of a block of compute capability 9.0 as one window of 32-bit addresses, and who is at work in it.
//
// The asynchronous proxy (wgmma, bulk and tensor copies) and ordinary accesses see each other's writes by fences and
// barriers alone: of every 16 bytes the window knows whether an ordinary store waits for its thread's fence, and what
// is in flight from and to them.
#pragma once

#include <cstdlib>

#include "emulator.h"

namespace mobilevit_fast::emulator {

// Ranks are in bits 24 and up of an address; the first KB of a block belongs to the system.
constexpr uint32_t kRankBit = 24, kWindowBegin = 1024, kMaxShared = 227 << 10;

class Window {
 public:
  static constexpr uint16_t kNobody = 0xffff, kOtherBlocks = 0xfffe;

  Window(unsigned rank, size_t bytes)
      : rank_(rank),
        bytes_(bytes),
        data_(static_cast<char*>(std::aligned_alloc(1024, (bytes + 1023) / 1024 * 1024 + 1024))),
        landing_((bytes + 15) / 16 * 4),
        reading_((bytes + 15) / 16),
        written_((bytes + 15) / 16, Written{0, kNobody}) {
    std::memset(data_.get(), 0xff, bytes);
  }

  char* data() { return data_.get(); }
  size_t bytes() const { return bytes_; }
  uint32_t address(const void* pointer) const {
    return rank_ << kRankBit | (kWindowBegin + static_cast<uint32_t>(static_cast<const char*>(pointer) - data_.get()));
  }

  // The place of an address of this block, counted from the first byte of dynamic shared memory.
  size_t offset(uint32_t address, size_t bytes, size_t alignment, const Place& place) const {
    const size_t from = address & ((1u << kRankBit) - 1);
    if (address >> kRankBit != rank_) {
      throw Error("shared memory: expected an address of block " + std::to_string(rank_) + " of the cluster, got " +
                  text(address) + " at " + place.text());
    }
    if (from < kWindowBegin || from - kWindowBegin + bytes > bytes_) {
      throw Error("shared memory: " + std::to_string(bytes) + " bytes at " + text(address) + " outside of the " +
                  std::to_string(bytes_) + " bytes of the launch at " + place.text());
    }
    if (from % alignment != 0) {
      throw Error("shared memory: expected a multiple of " + std::to_string(alignment) + ", got " + text(address) +
                  " at " + place.text());
    }
    return from - kWindowBegin;
  }

  // --- Ordinary accesses ---

  void check_load(size_t at, size_t bytes, const Place& place) const {
    for (size_t word = at / 4; word * 4 < at + bytes; ++word) {
      if (landing_[word] != 0) {
        throw Error("shared memory: " + here(at) + " is read at " + place.text() + " while a copy to it is in flight");
      }
    }
  }
  void check_store(size_t at, size_t bytes, const Place& place) const {
    for (size_t word = at / 4; word * 4 < at + bytes; ++word) {
      if (landing_[word] != 0) {
        throw Error("shared memory: " + here(at) + " is written at " + place.text() +
                    " while a copy to it is in flight");
      }
    }
    check_unread(at, bytes, place);
  }
  // By a thread that has passed so many proxy fences.
  void stored(size_t at, size_t bytes, uint16_t thread, uint32_t fences) {
    for (size_t granule = at / 16; granule * 16 < at + bytes; ++granule) written_[granule] = {fences, thread};
  }

  // --- The asynchronous proxy ---

  // `fences` gives those that a thread has passed.
  template <class Fences>
  void check_fenced(size_t at, size_t bytes, const char* what, const Place& place, const Fences& fences) const {
    for (size_t granule = at / 16; granule * 16 < at + bytes; ++granule) {
      const Written& last = written_[granule];
      if (last.thread != kNobody && last.fences == fences(last.thread)) {
        const std::string by = last.thread == kOtherBlocks ? "another block" : "thread " + std::to_string(last.thread);
        throw Error(std::string(what) + " at " + place.text() + " reads " + here(granule * 16) + ", which " + by +
                    " stored without fence_async");
      }
      const uint8_t* words = &landing_[granule * 4];
      if ((words[0] | words[1] | words[2] | words[3]) != 0) {
        throw Error(std::string(what) + " at " + place.text() + " reads " + here(granule * 16) +
                    " while a copy to it is in flight");
      }
    }
  }
  void begin_read(size_t at, size_t bytes) {
    for (size_t granule = at / 16; granule * 16 < at + bytes; ++granule) ++reading_[granule];
  }
  void end_read(size_t at, size_t bytes) {
    for (size_t granule = at / 16; granule * 16 < at + bytes; ++granule) --reading_[granule];
  }
  void begin_landing(size_t at, size_t bytes, const Place& place) {
    check_store(at, bytes, place);
    for (size_t word = at / 4; word * 4 < at + bytes; ++word) ++landing_[word];
  }
  void end_landing(size_t at, size_t bytes) {
    for (size_t word = at / 4; word * 4 < at + bytes; ++word) --landing_[word];
  }

  std::string here(size_t at) const { return "byte " + std::to_string(at) + " of block " + std::to_string(rank_); }
  static std::string text(uint32_t address) {
    const int64_t from = address & ((1u << kRankBit) - 1);
    return "block " + std::to_string(address >> kRankBit) + "'s byte " + std::to_string(from - kWindowBegin);
  }

 private:
  struct Written {
    uint32_t fences;
    uint16_t thread;
  };
  struct Free {
    void operator()(char* data) const { std::free(data); }
  };

  void check_unread(size_t at, size_t bytes, const Place& place) const {
    for (size_t granule = at / 16; granule * 16 < at + bytes; ++granule) {
      if (reading_[granule] != 0) {
        throw Error("shared memory: " + here(at) + " is written at " + place.text() +
                    " while a product or a copy in flight reads it");
      }
    }
  }

  const unsigned rank_;
  const size_t bytes_;
  std::unique_ptr<char, Free> data_;
  std::vector<uint8_t> landing_;   // copies in flight to each word
  std::vector<uint16_t> reading_;  // products and copies in flight from each 16 bytes
  std::vector<Written> written_;
};

}  // namespace mobilevit_fast::emulator
