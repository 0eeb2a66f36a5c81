// The emulated kernels as a Python module. Arrays are copied into heap blocks of their exact size and back, so that
// AddressSanitizer sees what a kernel reads or writes beside them.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>

#include "depthwise_conv2d_kernel.h"
#include "inverted_residual_tiles.h"
#include "primitives.h"

namespace py = pybind11;
using namespace mobilevit_fast::cuda;
using mobilevit_fast::emulator::Device;
using mobilevit_fast::emulator::Error;
using mobilevit_fast::emulator::Options;

namespace {

// A numpy array in a block of its own, written back at the end.
class Copied {
 public:
  Copied(Device& device, const char* name, const py::array& array)
      : array_(array), bytes_(array.nbytes()), data_(new char[bytes_]) {
    if (!(array.flags() & py::array::c_style)) throw py::value_error("expected an array whose elements lie in order");
    std::memcpy(data_.get(), array.data(), bytes_);
    device.add(name, data_.get(), bytes_);
  }
  ~Copied() { std::memcpy(array_.mutable_data(), data_.get(), bytes_); }

  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  py::array array_;
  size_t bytes_;
  std::unique_ptr<char[]> data_;
};

py::dict counts_of(const Device& device) {
  py::dict result;
  for (const auto& array : device.arrays) result[array.name.c_str()] = py::make_tuple(array.read, array.written);
  result["products"] = device.counts.products, result["exponentials"] = device.counts.exponentials;
  result["wavefronts"] = device.counts.wavefronts, result["conflicts"] = device.counts.conflicts;
  return result;
}

constexpr size_t kSharedBytes = 64 << 10;

template <class Kernel>
py::dict run(Device& device, unsigned threads, Kernel kernel) {
  mobilevit_fast::emulator::launch(device, 1, threads, kSharedBytes, kernel);
  return counts_of(device);
}

void bind_primitives(py::module_& m) {
  m.def("multiply_fragments", [](py::array a, py::array b, py::array d, bool bfloat16) {
    Device device({});
    Copied left(device, "a", a), right(device, "b", b), sum(device, "d", d);
    return run(device, 32, [&] {
      const auto kernel = bfloat16 ? multiply_fragments<BFloat16> : multiply_fragments<Half>;
      kernel(left.as<uint32_t>(), right.as<uint32_t>(), sum.as<float>());
    });
  });
  m.def("load_fragments", [](py::array rows, py::array fragments, bool transposed) {
    Device device({});
    Copied from(device, "rows", rows), to(device, "fragments", fragments);
    return run(device, 32, [&] { load_fragments(from.as<Bytes16>(), to.as<uint32_t>(), transposed); });
  });
  m.def("exchange", [](py::array values, int mask) {
    Device device({});
    Copied copied(device, "values", values);
    return run(device, static_cast<unsigned>(values.size()), [&] { exchange(copied.as<float>(), mask); });
  });
  m.def("pass_on", [](py::array y, bool with_barrier, uint32_t seed) {
    Device device({seed});
    Copied to(device, "y", y);
    const int threads = static_cast<int>(y.size());
    return run(device, threads, [&] { pass_on(to.as<float>(), threads, with_barrier); });
  });
  m.def("copy_stages", [](py::array x, py::array y, bool with_wait) {
    Device device({});
    Copied from(device, "x", x), to(device, "y", y);
    const int threads = static_cast<int>(x.nbytes() / 32);
    return run(device, threads, [&] { copy_stages(from.as<Bytes16>(), to.as<Bytes16>(), threads, with_wait); });
  });
  py::enum_<Fault>(m, "Fault")
      .value("none", Fault::none)
      .value("barrier_missed", Fault::barrier_missed)
      .value("barriers_of_two_lines", Fault::barriers_of_two_lines)
      .value("lane_missing", Fault::lane_missing)
      .value("shared_overflow", Fault::shared_overflow)
      .value("global_overflow", Fault::global_overflow)
      .value("too_large", Fault::too_large);
  m.def("go_wrong", [](py::array y, Fault fault) {
    Device device({});
    Copied to(device, "y", y);
    return run(device, 64, [&] { go_wrong(fault, to.as<float>()); });
  });
  m.def("read_banks", [](py::array y, int stride) {
    Device device({0, true});
    Copied to(device, "y", y);
    return run(device, 32, [&] { read_banks(to.as<float>(), stride); });
  });
  m.def("to_float",
        [](uint16_t bits, bool bfloat16) { return bfloat16 ? to_float(BFloat16{bits}) : to_float(Half{bits}); });
  m.def("from_float", [](float value, bool bfloat16) {
    return bfloat16 ? from_float<BFloat16>(value).bits : from_float<Half>(value).bits;
  });
}

// Global arrays by name, as a kernel's parameters.
class Arrays {
 public:
  Arrays(Device& device, const std::map<std::string, py::array>& given) {
    for (const auto& [name, array] : given)
      copies_.emplace(name, std::make_unique<Copied>(device, name.c_str(), array));
  }
  template <class T>
  T* at(const char* name) {
    return copies_.at(name)->as<T>();
  }

 private:
  std::map<std::string, std::unique_ptr<Copied>> copies_;
};

template <class T>
py::dict run_depthwise_conv2d(const std::map<std::string, py::array>& given, const std::map<std::string, int>& sizes,
                              int kernel, int stride, int tile, const Options& options) {
  Device device(options);
  Arrays arrays(device, given);
  DepthwiseConv2dParams p{};
  p.x = arrays.at<void>("x"), p.y = arrays.at<void>("y"), p.weight = arrays.at<Float2>("weight");
  p.scale = arrays.at<Float2>("scale"), p.bias = arrays.at<Float2>("bias");
  p.batch = sizes.at("batch"), p.height = sizes.at("height"), p.width = sizes.at("width");
  p.channels = sizes.at("channels"), p.out_h = sizes.at("out_h"), p.out_w = sizes.at("out_w");
  p.padding = sizes.at("padding"), p.dilation = sizes.at("dilation");
  p.activation = static_cast<Activation>(sizes.at("activation"));
  const bool found = with_depthwise_kernel<T>(kernel, stride, tile, [&](auto one) {
    using Kernel = decltype(one);
    mobilevit_fast::emulator::launch(device, Kernel::blocks(p), Kernel::kThreads, Kernel::shared_bytes(p),
                                     [&] { Kernel::run(p); });
  });
  if (!found) throw py::value_error("there is no kernel of this window");
  return counts_of(device);
}

template <class T>
py::dict run_inverted_residual(const std::map<std::string, py::array>& given, const std::map<std::string, int>& sizes,
                               int stride, int tile, const Options& options) {
  Device device(options);
  Arrays arrays(device, given);
  InvertedResidualParams p{};
  p.x = arrays.at<void>("x"), p.y = arrays.at<void>("y"), p.project_weight = arrays.at<Bytes16>("project_weight");
  const bool expands = given.count("expand_weight") > 0;
  if (expands) {
    p.expand_weight = arrays.at<Bytes16>("expand_weight");
    p.expand_scale = arrays.at<Float2>("expand_scale"), p.expand_bias = arrays.at<Float2>("expand_bias");
  }
  p.depthwise_weight = arrays.at<Float2>("depthwise_weight");
  p.depthwise_scale = arrays.at<Float2>("depthwise_scale"), p.depthwise_bias = arrays.at<Float2>("depthwise_bias");
  p.project_scale = arrays.at<Float2>("project_scale"), p.project_bias = arrays.at<Float2>("project_bias");
  p.batch = sizes.at("batch"), p.height = sizes.at("height"), p.width = sizes.at("width");
  p.channels = sizes.at("channels"), p.expanded = sizes.at("expanded"), p.outputs = sizes.at("outputs");
  p.out_h = sizes.at("out_h"), p.out_w = sizes.at("out_w"), p.dilation = sizes.at("dilation");
  p.padding = sizes.at("padding"), p.residual = sizes.at("residual") != 0;
  p.activation = static_cast<Activation>(sizes.at("activation"));
  p.project_activation = static_cast<Activation>(sizes.at("project_activation"));
  const auto run = [&](auto kernel) {
    using Kernel = decltype(kernel);
    mobilevit_fast::emulator::launch(device, Kernel::blocks(p), Kernel::kThreads, Kernel::shared_bytes(p),
                                     [&] { Kernel::run(p); });
  };
  const bool found = expands ? with_kernel<T, true>(p, stride, tile, run) : with_kernel<T, false>(p, stride, tile, run);
  if (!found) throw py::value_error("there is no kernel of this tile for so many outputs");
  return counts_of(device);
}

}  // namespace

PYBIND11_MODULE(mvf_emulated, m) {
  py::register_exception<Error>(m, "Error");
  bind_primitives(m);
  m.def("inverted_residual", [](const std::map<std::string, py::array>& arrays, const std::map<std::string, int>& sizes,
                                int stride, int tile, bool bfloat16, uint32_t seed, bool watch_banks) {
    return (bfloat16 ? run_inverted_residual<BFloat16> : run_inverted_residual<Half>)(arrays, sizes, stride, tile,
                                                                                      {seed, watch_banks});
  });
  m.attr("tile_sizes") = kTileSizes;
  m.def("depthwise_conv2d", [](const std::map<std::string, py::array>& arrays, const std::map<std::string, int>& sizes,
                               int kernel, int stride, int tile, bool bfloat16, uint32_t seed, bool watch_banks) {
    return (bfloat16 ? run_depthwise_conv2d<BFloat16> : run_depthwise_conv2d<Half>)(arrays, sizes, kernel, stride, tile,
                                                                                    {seed, watch_banks});
  });
}
