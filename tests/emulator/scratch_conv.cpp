// The emulated dense convolution and classifier head as a Python module.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>

#include "classifier_head_kernel.h"
#include "conv2d_stem_kernel.h"

namespace py = pybind11;
using namespace mobilevit_fast::cuda;
using mobilevit_fast::emulator::Device;
using mobilevit_fast::emulator::Options;

namespace {

using Arrays = std::map<std::string, py::array>;
using Sizes = std::map<std::string, int>;

// Copies of exact size in blocks of their own, of the arrays that a kernel says it has.
template <class Kernel>
py::dict run(typename Kernel::Params p, Arrays arrays, const Options& options) {
  Device device(options);
  std::map<std::string, std::unique_ptr<char[]>> copies;
  std::map<std::string, size_t> sizes;
  Kernel::arrays(p, [&](const char* name, const void*, size_t bytes) { sizes[name] = bytes; });
  if (sizes.size() != arrays.size()) throw py::value_error("arrays that the kernel does not have");
  for (auto& [name, bytes] : sizes) {
    const py::array& array = arrays.at(name);
    if (static_cast<size_t>(array.nbytes()) != bytes)
      throw py::value_error(name + ": expected " + std::to_string(bytes) + " bytes, got " +
                            std::to_string(array.nbytes()));
    copies[name].reset(new char[bytes]);
    std::memcpy(copies[name].get(), array.data(), bytes);
    device.add(name, copies[name].get(), bytes);
  }
  const auto at = [&](const char* name) -> void* { return copies.count(name) ? copies[name].get() : nullptr; };
  p.x = at("x"), p.weight = static_cast<Bytes16*>(at("weight"));
  p.scale = static_cast<Float2*>(at("scale")), p.bias = static_cast<Float2*>(at("bias"));
  if constexpr (std::is_same_v<typename Kernel::Params, ClassifierHeadParams>) {
    p.mean = at("mean");
  } else {
    p.y = at("y");
  }
  if constexpr (std::is_same_v<typename Kernel::Params, Conv2dBiasActParams>) p.x2 = at("x2");
  const size_t shared = Kernel::shared_bytes(p);
  mobilevit_fast::emulator::launch(device, Kernel::blocks(p), Kernel::kThreads, shared, [&] { Kernel::run(p); });
  for (auto& [name, array] : arrays) std::memcpy(array.mutable_data(), copies[name].get(), sizes[name]);
  py::dict result;
  for (const auto& array : device.arrays) result[array.name.c_str()] = py::make_tuple(array.read, array.written);
  result["products"] = device.counts.products, result["exponentials"] = device.counts.exponentials;
  result["wavefronts"] = device.counts.wavefronts, result["conflicts"] = device.counts.conflicts;
  result["blocks"] = Kernel::blocks(p), result["shared"] = shared;
  return result;
}

Conv2dShape shape_of(const Sizes& s) {
  return {s.at("batch"),     s.at("height"),    s.at("width"),      s.at("channels"),
          s.at("channels2"), s.at("outputs"),   s.at("out_h"),      s.at("out_w"),
          s.at("kernel_h"),  s.at("kernel_w"),  s.at("stride_h"),   s.at("stride_w"),
          s.at("padding_h"), s.at("padding_w"), s.at("dilation_h"), s.at("dilation_w")};
}

// {} chooses; {variant} takes the best tile of one; {variant, images, height, width} is that tile.
Conv2dTile tile_of(const Conv2dShape& s, const std::vector<int>& asked, int processors) {
  if (asked.empty()) return choose_conv2d_tile(s, processors);
  if (asked.size() == 1) return conv2d_best_tile(s, asked[0], processors);
  return conv2d_tile(s, asked[0], asked[1], asked[2], asked[3]);
}

py::dict describe(const Conv2dTile& t) {
  py::dict d;
  d["variant"] = t.variant, d["images"] = t.images, d["height"] = t.height, d["width"] = t.width;
  d["group"] = t.group, d["gathers"] = t.gathers;
  return d;
}

template <class T>
py::dict conv2d(Arrays arrays, const Sizes& sizes, const std::vector<int>& tile, int processors,
                const Options& options) {
  py::dict result;
  const auto activation = static_cast<Activation>(sizes.at("activation"));
  if (sizes.at("stem")) {
    Conv2dStemParams p{};
    p.shape = shape_of(sizes), p.planar = sizes.at("planar") != 0, p.activation = activation;
    const Conv2dStemTile chosen =
        tile.empty() ? choose_conv2d_stem_tile(p.shape, processors) : Conv2dStemTile{tile[0], tile[1]};
    p.tile_h = chosen.height, p.tile_w = chosen.width;
    with_conv2d_stem_kernel<T>(p.shape.kernel_h * p.shape.kernel_w * p.shape.channels,
                               [&](auto kernel) { result = run<decltype(kernel)>(p, arrays, options); });
    result["tile"] = py::make_tuple(p.tile_h, p.tile_w);
    return result;
  }
  Conv2dBiasActParams p{};
  p.shape = shape_of(sizes), p.activation = activation, p.tile = tile_of(p.shape, tile, processors);
  with_conv2d_kernel<T>(p.tile.variant, [&](auto kernel) { result = run<decltype(kernel)>(p, arrays, options); });
  result["tile"] = describe(p.tile);
  return result;
}

template <class T>
py::dict head(Arrays arrays, const Sizes& sizes, const std::vector<int>& tile, int processors, const Options& options) {
  py::dict result;
  ClassifierHeadParams p{};
  p.shape = shape_of(sizes), p.activation = static_cast<Activation>(sizes.at("activation"));
  p.tile = tile.empty() ? choose_classifier_head_tile(p.shape, processors)
                        : conv2d_tile(p.shape, tile[0], 1, tile[1], tile[2]);
  with_classifier_head_kernel<T>(p.tile.variant,
                                 [&](auto kernel) { result = run<decltype(kernel)>(p, arrays, options); });
  result["tile"] = describe(p.tile);
  return result;
}

}  // namespace

PYBIND11_MODULE(mvf_scratch_conv, m) {
  py::register_exception<mobilevit_fast::emulator::Error>(m, "Error");
  m.attr("variants") = kConv2dVariantCount;
  m.attr("head_variants") = kClassifierHeadVariantCount;
  m.def("choose", [](const Sizes& sizes, const std::vector<int>& tile, int processors) {
    const Conv2dShape shape = shape_of(sizes);
    const Conv2dTile t = tile_of(shape, tile, processors);
    py::dict d = describe(t);
    d["blocks"] = conv2d_blocks(shape, t), d["shared"] = conv2d_work_bytes(shape, t) + conv2d_place_bytes(t);
    d["clocks"] = conv2d_clocks(shape, t, processors);
    return d;
  });
  m.def("conv2d", [](const Arrays& arrays, const Sizes& sizes, const std::vector<int>& tile, int processors,
                     bool bfloat16, uint32_t seed, bool watch) {
    return (bfloat16 ? conv2d<BFloat16> : conv2d<Half>)(arrays, sizes, tile, processors, {seed, watch});
  });
  m.def("head", [](const Arrays& arrays, const Sizes& sizes, const std::vector<int>& tile, int processors,
                   bool bfloat16, uint32_t seed, bool watch) {
    return (bfloat16 ? head<BFloat16> : head<Half>)(arrays, sizes, tile, processors, {seed, watch});
  });
}
