// wgmma on the CPU. A warpgroup's m64nNk16 is four products of 16 rows, one of each warp, since nothing but barriers
// keeps its warps together: each has accumulators, groups and waits of its own.
//
// Accumulators leave the registers when the first product of a chain is issued, and not-a-number takes their place
// until a wait brings them back. What a product reads is in flight from its first lane's issue to the wait; the product
// itself is computed at once or at the wait, as chance decides.
#pragma once

#include "halves.h"
#include "sm90_loops.h"

namespace mobilevit_fast::emulator {

// Accumulators of a warp that products in flight add to: 16 rows of n.
struct Sums {
  int n;
  std::array<float*, kWarp> lanes{};  // their registers
  std::vector<float> numbers;
  int products = 0;  // that no wait has seen

  // The registers of a lane: number 4 j + 2 h + e is of row 8 h + lane / 4, column 8 j + 2 (lane % 4) + e.
  float* at(unsigned lane, int j, int h) { return &numbers[(8 * h + lane / 4) * n + 8 * j + lane % 4 * 2]; }
  void take(unsigned lane, float* registers, bool with_values) {
    lanes[lane] = registers;
    for (int j = 0; j < n / 8; ++j) {
      for (int h = 0; h < 2; ++h) {
        if (with_values) std::memcpy(at(lane, j, h), registers + 4 * j + 2 * h, 2 * sizeof(float));
      }
    }
    std::fill_n(registers, n / 2, NAN);
  }
  void give_back() {
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      for (int j = 0; j < n / 8; ++j) {
        for (int h = 0; h < 2; ++h) std::memcpy(lanes[lane] + 4 * j + 2 * h, at(lane, j, h), 2 * sizeof(float));
      }
    }
  }
};

// What an instruction is asked to do; the same in all lanes.
struct ProductRequest {
  uint64_t left, right;
  int n, add;
  bool bfloat16, left_in_registers, left_transposed, right_transposed;

  bool operator==(const ProductRequest& o) const {
    return left == o.left && right == o.right && n == o.n && (add != 0) == (o.add != 0) && bfloat16 == o.bfloat16 &&
           left_in_registers == o.left_in_registers && left_transposed == o.left_transposed &&
           right_transposed == o.right_transposed;
  }
};

struct Product {
  Place place;
  ProductRequest request;
  std::shared_ptr<Sums> sums;
  unsigned lanes = 0;
  bool done = false;
  std::vector<uint32_t> reads;                // 16 bytes each, from the window's begin
  std::array<float, 16 * 16> left_numbers{};  // of registers
};

class WarpProducts {
 public:
  // A lane issues its next product. `check` is called by the first lane with each 16 bytes that it reads.
  template <class Check>
  void issue(unsigned lane, unsigned quarter, Window& window, const ProductRequest& request, float* sums,
             const uint32_t* left, const Place& place, bool at_once, const Check& check) {
    const size_t number = issued_[lane]++ - retired_;
    if (number == products_.size()) {
      products_.push_back({});
      Product& made = products_.back();
      made.place = place, made.request = request;
      made.sums = open_sums(lane, sums, request.n, place);
      ++made.sums->products;
      list_reads(made, quarter, window, check);
    }
    Product& product = products_[number];
    if (!(product.request == request) || !(product.place == place)) {
      throw Error("divergent wgmma: lane " + std::to_string(lane) + " at " + place.text() + ", others at " +
                  product.place.text() + ", or of other matrices");
    }
    Sums& target = *product.sums;
    if (target.lanes[lane] == nullptr) {
      if (!fenced_[lane]) {
        throw Error("wgmma at " + place.text() + ": no wgmma_fence since the sums were written or waited for");
      }
      target.take(lane, sums, request.add != 0);
    } else if (target.lanes[lane] != sums) {
      throw Error("divergent wgmma: lanes add to different sums at " + place.text());
    }
    if (request.left_in_registers) {
      for (unsigned i = 0; i < 4; ++i) {
        for (unsigned e = 0; e < 2; ++e) {
          const uint16_t bits = static_cast<uint16_t>(left[i] >> 16 * e);
          product.left_numbers[(lane / 4 + i % 2 * 8) * 16 + lane % 4 * 2 + i / 2 * 8 + e] =
              request.bfloat16 ? float_of_bfloat16(bits) : float_of_half(bits);
        }
      }
    }
    if (++product.lanes == kWarp && at_once) perform(number + 1, quarter, window);
  }
  void fence(unsigned lane) { fenced_[lane] = true; }
  void commit(unsigned lane, const Place& place) {
    const size_t number = commits_[lane]++;
    if (number == groups_.size()) groups_.push_back(issued_[lane]);
    if (groups_[number] != issued_[lane]) {
      throw Error("divergent wgmma: lanes commit different products at " + place.text());
    }
  }
  // All lanes wait for all groups but the last `left`.
  void wait(size_t left, unsigned quarter, Window& window, const Place& place) {
    for (unsigned lane = 1; lane < kWarp; ++lane) {
      if (commits_[lane] != commits_[0] || issued_[lane] != issued_[0]) {
        throw Error("divergent wgmma: lanes wait for different products at " + place.text());
      }
    }
    if (groups_.size() <= left) return;
    const size_t end = groups_[groups_.size() - 1 - left];
    if (end <= retired_) return;
    perform(end - retired_, quarter, window);
    for (; retired_ < end; ++retired_) {
      Product& product = products_.front();
      for (const uint32_t at : product.reads) window.end_read(at, 16);
      if (--product.sums->products == 0) {
        product.sums->give_back();
        open_.erase(std::find(open_.begin(), open_.end(), product.sums));
        fenced_.fill(false);
      }
      products_.pop_front();
    }
  }
  size_t issued() const { return issued_[0]; }
  bool idle() const { return products_.empty(); }
  const Place& oldest() const { return products_.front().place; }

 private:
  std::shared_ptr<Sums> open_sums(unsigned lane, float* registers, int n, const Place& place) {
    for (const auto& sums : open_) {
      if (sums->lanes[lane] == registers && sums->n == n) return sums;
      const float* other = sums->lanes[lane];
      if (other != nullptr && registers < other + sums->n / 2 && other < registers + n / 2) {
        throw Error("wgmma at " + place.text() + ": products in flight add to some of the same sums in another shape");
      }
    }
    open_.push_back(std::make_shared<Sums>());
    open_.back()->n = n, open_.back()->numbers.assign(static_cast<size_t>(16 * n), 0.0f);
    return open_.back();
  }

  template <class Check>
  static void list_reads(Product& product, unsigned quarter, Window& window, const Check& check) {
    const ProductRequest& request = product.request;
    const auto list = [&](uint64_t descriptor, bool transposed, uint32_t first, uint32_t rows) {
      const Operand operand = Operand::of(descriptor, transposed, product.place);
      for (uint32_t depth = 0; depth < 16; depth += transposed ? 1 : 8) {
        for (uint32_t row = 0; row < rows; row += transposed ? 8 : 1) {
          const uint32_t address = operand.chunk(first + row, depth);
          if (address < kWindowBegin || address - kWindowBegin + 16 > window.bytes()) {
            throw Error("wgmma at " + product.place.text() + ": a matrix reaches outside of shared memory, to byte " +
                        std::to_string(static_cast<int64_t>(address) - kWindowBegin) + " of " +
                        std::to_string(window.bytes()));
          }
          product.reads.push_back(address - kWindowBegin);
        }
      }
    };
    product.reads.reserve(static_cast<size_t>(2 * (16 + request.n)));
    if (!request.left_in_registers) list(request.left, request.left_transposed, 16 * quarter, 16);
    list(request.right, request.right_transposed, 0, static_cast<uint32_t>(request.n));
    for (const uint32_t at : product.reads) {
      check(at);
      window.begin_read(at, 16);
    }
  }

  // The first `count` products, as far as they are still to be computed.
  void perform(size_t count, unsigned quarter, Window& window) {
    const char* memory = window.data() - kWindowBegin;
    std::array<float, 16 * 16> left, across;
    std::array<float, 16 * 256> right;
    for (size_t i = 0; i < count; ++i) {
      Product& product = products_[i];
      if (product.done) continue;
      if (product.lanes != kWarp) throw Error("divergent wgmma: lanes are missing at " + product.place.text());
      const ProductRequest& request = product.request;
      if (!request.left_in_registers) {
        const Operand operand = Operand::of(request.left, request.left_transposed, product.place);
        read_operand(memory, operand, static_cast<int>(16 * quarter), 16, request.bfloat16, across.data());
        for (size_t k = 0; k < 16; ++k) {
          for (size_t row = 0; row < 16; ++row) left[row * 16 + k] = across[k * 16 + row];
        }
      }
      read_operand(memory, Operand::of(request.right, request.right_transposed, product.place), 0, request.n,
                   request.bfloat16, right.data());
      std::vector<float>& sums = product.sums->numbers;
      if (request.add == 0) std::fill(sums.begin(), sums.end(), 0.0f);
      add_product(sums.data(), request.left_in_registers ? product.left_numbers.data() : left.data(), right.data(),
                  request.n);
      product.done = true;
    }
  }

  std::deque<Product> products_;  // that no wait has seen
  size_t retired_ = 0;            // those before
  std::array<size_t, kWarp> issued_{}, commits_{};
  std::array<bool, kWarp> fenced_{};
  std::vector<size_t> groups_;  // how many products end each one
  std::vector<std::shared_ptr<Sums>> open_;
};

}  // namespace mobilevit_fast::emulator
