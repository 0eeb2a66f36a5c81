// What both files of the emulator's bindings use.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <memory>

// A numpy array in a heap block of its exact size, written back at the end, so that AddressSanitizer sees what a kernel
// reads or writes beside it.
class Copied {
 public:
  explicit Copied(const pybind11::array& array)
      : array_(array), bytes_(static_cast<size_t>(array.nbytes())), data_(new char[bytes_]) {
    if (!(array.flags() & pybind11::array::c_style)) {
      throw pybind11::value_error("expected an array whose elements lie in order");
    }
    std::memcpy(data_.get(), array.data(), bytes_);
  }
  ~Copied() { std::memcpy(array_.mutable_data(), data_.get(), bytes_); }

  char* data() { return data_.get(); }
  size_t bytes() const { return bytes_; }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  pybind11::array array_;
  size_t bytes_;
  std::unique_ptr<char[]> data_;
};

void bind_sm90(pybind11::module_& m);
