// Kernels one after the other in one call: what a binding gives for that.
//
// A program is numbers: of each step the kernel (kProgramKernels), the place of its result, and its arguments in their
// order. A tensor is a place, where the images are place 0 and packed weights follow all places, or -1 for none; a
// float is its bits; a list and a text have their length in front. mobilevit_fast/ops/program.py writes them.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/checks.h"

namespace mobilevit_fast::cuda {

constexpr std::string_view kProgramKernels[] = {"conv2d_bias_act", "inverted_residual", "mobilevit_transformer",
                                                "classifier_head"};
constexpr size_t kProgramKernelCount = sizeof(kProgramKernels) / sizeof(kProgramKernels[0]);

// Reads a program's numbers, each of which may be wrong.
class ProgramReader {
 public:
  ProgramReader(const std::vector<int64_t>& code, const std::vector<Tensor>& packed) : code_(code), packed_(packed) {
    places_.resize(within(number(), code_.size()));
  }

  bool at_end() const { return at_ == code_.size(); }
  int64_t number() {
    check(at_ < code_.size(), "mobilevit_fast.program: expected a program that is whole, got ", code_.size(),
          " numbers");
    return code_[at_++];
  }
  // A number that is less than a size.
  static size_t within(int64_t value, size_t size) {
    check(value >= 0 && static_cast<size_t>(value) < size, "mobilevit_fast.program: expected a number of less than ",
          size, ", got ", value);
    return static_cast<size_t>(value);
  }
  Tensor& place() { return places_[within(number(), places_.size())]; }

  template <class T>
  T next() {
    if constexpr (std::is_same_v<T, Tensor>) {
      return tensor(number());
    } else if constexpr (std::is_same_v<T, OptionalTensor>) {
      const int64_t at = number();
      return at < 0 ? OptionalTensor() : OptionalTensor(tensor(at));
    } else if constexpr (std::is_same_v<T, double>) {
      const int64_t bits = number();
      double value = 0;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
    } else if constexpr (std::is_arithmetic_v<T>) {
      return static_cast<T>(number());
    } else {
      T values(within(number(), code_.size()), 0);  // a list or a text
      for (auto& value : values) value = static_cast<std::decay_t<decltype(value)>>(number());
      return values;
    }
  }

  std::vector<Tensor>& places() { return places_; }

 private:
  const Tensor& tensor(int64_t at) const {
    const size_t found = within(at, places_.size() + packed_.size());
    return found < places_.size() ? places_[found] : packed_[found - places_.size()];
  }

  const std::vector<int64_t>& code_;
  const std::vector<Tensor>& packed_;
  std::vector<Tensor> places_;
  size_t at_ = 0;
};

using ProgramStep = Tensor (*)(ProgramReader&);

// The steps by number of their kernel; a binding puts its own there when the library is loaded.
inline ProgramStep& program_step(size_t kernel) {
  static ProgramStep steps[kProgramKernelCount] = {};
  return steps[kernel];
}

template <auto kFunction>
struct StepOf;
template <class... Args, Tensor (*kFunction)(Args...)>
struct StepOf<kFunction> {
  static Tensor run(ProgramReader& reader) {
    std::tuple<Args...> arguments{reader.next<Args>()...};  // in their order
    return std::apply(kFunction, std::move(arguments));
  }
};

template <auto kFunction>
bool in_programs(std::string_view name) {
  for (size_t kernel = 0; kernel < kProgramKernelCount; ++kernel) {
    if (kProgramKernels[kernel] == name) program_step(kernel) = StepOf<kFunction>::run;
  }
  return true;
}

}  // namespace mobilevit_fast::cuda
