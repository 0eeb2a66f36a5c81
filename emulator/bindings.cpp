// The emulator as a Python module: its primitives, for tests of its own, and what launches through the bindings of the
// operators did. Tensors of the operators are heap blocks of their exact size, as arrays of the primitives are.
#include "bindings.h"

#include <cxxabi.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <map>

#include "cuda/conv2d_bias_act/conv2d_bias_act_tiles.h"
#include "cuda/mobilevit_transformer/mobilevit_transformer.h"
#include "cuda/sm90/conv3x3_sm90.h"
#include "primitives.h"

namespace py = pybind11;
using namespace mobilevit_fast::cuda;
using mobilevit_fast::emulator::Device;
using mobilevit_fast::emulator::Error;
using mobilevit_fast::emulator::Log;

namespace {

// A numpy array as an array of a launch.
class Listed : public Copied {
 public:
  Listed(Device& device, const char* name, const py::array& array) : Copied(array) {
    device.add(name, data(), bytes());
  }
};

py::dict counts_of(const Device& device) {
  py::dict result;
  for (const auto& array : device.arrays) result[array.name.c_str()] = py::make_tuple(array.read, array.written);
  result["products"] = device.counts.products, result["exponentials"] = device.counts.exponentials;
  result["wavefronts"] = device.counts.wavefronts, result["conflicts"] = device.counts.conflicts;
  result["sectors"] = device.counts.sectors;
  return result;
}

std::string demangled(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
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
    Listed left(device, "a", a), right(device, "b", b), sum(device, "d", d);
    return run(device, 32, [&] {
      const auto kernel = bfloat16 ? multiply_fragments<BFloat16> : multiply_fragments<Half>;
      kernel(left.as<uint32_t>(), right.as<uint32_t>(), sum.as<float>());
    });
  });
  m.def("load_fragments", [](py::array rows, py::array fragments, bool transposed) {
    Device device({});
    Listed from(device, "rows", rows), to(device, "fragments", fragments);
    return run(device, 32, [&] { load_fragments(from.as<Bytes16>(), to.as<uint32_t>(), transposed); });
  });
  m.def("exchange", [](py::array values, int mask) {
    Device device({});
    Listed copied(device, "values", values);
    return run(device, static_cast<unsigned>(values.size()), [&] { exchange(copied.as<float>(), mask); });
  });
  m.def("combine", [](py::array x, py::array y) {
    Device device({});
    Listed left(device, "x", x), right(device, "y", y);
    return run(device, static_cast<unsigned>(x.size()), [&] { combine(left.as<float>(), right.as<float>()); });
  });
  m.def("approximate", [](py::array x, py::array y, py::array z) {
    Device device({});
    Listed first(device, "x", x), second(device, "y", y), third(device, "z", z);
    return run(device, static_cast<unsigned>(x.size()),
               [&] { approximate(first.as<float>(), second.as<float>(), third.as<float>()); });
  });
  m.def("read_sectors", [](py::array x, py::array y, int stride) {
    Device device({0, true});
    Listed from(device, "x", x), to(device, "y", y);
    return run(device, 32, [&] { read_sectors(from.as<float>(), to.as<float>(), stride); });
  });
  m.def("pass_on", [](py::array y, bool with_barrier, uint32_t seed) {
    Device device({seed});
    Listed to(device, "y", y);
    const int threads = static_cast<int>(y.size());
    return run(device, threads, [&] { pass_on(to.as<float>(), threads, with_barrier); });
  });
  m.def("copy_stages", [](py::array x, py::array y, bool with_wait) {
    Device device({});
    Listed from(device, "x", x), to(device, "y", y);
    const int threads = static_cast<int>(x.nbytes() / 32);
    return run(device, threads, [&] { copy_stages(from.as<Bytes16>(), to.as<Bytes16>(), threads, with_wait); });
  });
  py::enum_<Fault>(m, "Fault")
      .value("none", Fault::none)
      .value("barrier_missed", Fault::barrier_missed)
      .value("barriers_of_two_lines", Fault::barriers_of_two_lines)
      .value("lane_missing", Fault::lane_missing)
      .value("moved_load", Fault::moved_load)
      .value("shared_overflow", Fault::shared_overflow)
      .value("global_overflow", Fault::global_overflow)
      .value("too_large", Fault::too_large);
  m.def("go_wrong", [](py::array y, Fault fault) {
    Device device({});
    Listed to(device, "y", y);
    return run(device, 64, [&] { go_wrong(fault, to.as<float>()); });
  });
  m.def("read_banks", [](py::array y, int stride) {
    Device device({0, true});
    Listed to(device, "y", y);
    return run(device, 32, [&] { read_banks(to.as<float>(), stride); });
  });
  m.def("to_float",
        [](uint16_t bits, bool bfloat16) { return bfloat16 ? to_float(BFloat16{bits}) : to_float(Half{bits}); });
  m.def("from_float", [](float value, bool bfloat16) {
    return bfloat16 ? from_float<BFloat16>(value).bits : from_float<Half>(value).bits;
  });
}

// What the launches since the last call did.
py::list take_launches() {
  py::list result;
  for (const auto& one : Log::get().launches) {
    py::dict entry, arrays;
    for (const auto& array : one.arrays) arrays[array.name.c_str()] = py::make_tuple(array.read, array.written);
    entry["kernel"] = demangled(one.kernel), entry["blocks"] = one.blocks, entry["threads"] = one.threads;
    entry["shared_bytes"] = one.shared_bytes, entry["arrays"] = arrays;
    entry["products"] = one.counts.products, entry["exponentials"] = one.counts.exponentials;
    entry["wavefronts"] = one.counts.wavefronts, entry["conflicts"] = one.counts.conflicts;
    entry["sectors"] = one.counts.sectors, entry["instructions"] = one.counts.instructions;
    entry["waits"] = one.counts.waits;
    entry["wgmma_macs"] = one.counts.wgmma_macs, entry["wgmma_clocks"] = one.counts.wgmma_clocks;
    result.append(entry);
  }
  Log::get().launches.clear();
  return result;
}

// The tile of a dense convolution of these sizes, in the order of Conv2dShape.
py::dict conv2d_tile_of(const std::array<int, 16>& n, int processors) {
  const Conv2dShape shape{n[0], n[1], n[2],  n[3],  n[4],  n[5],  n[6],  n[7],
                          n[8], n[9], n[10], n[11], n[12], n[13], n[14], n[15]};
  const Conv2dTile tile = choose_conv2d_tile(shape, processors);
  py::dict result;
  result["variant"] = tile.variant, result["gathers"] = tile.gathers, result["blocks"] = conv2d_blocks(shape, tile);
  result["warps"] = kConv2dVariants[tile.variant].warps();
  result["shared_bytes"] = conv2d_work_bytes(shape, tile) + conv2d_place_bytes(tile);
  return result;
}

// The tiles of a transformer stack of these sizes on the chip that is set; {} where none fit.
py::dict transformer_tile_of(const std::map<std::string, int>& size) {
  MobileViTTransformerParams p{};
  p.batch = size.at("batch"), p.height = size.at("height"), p.width = size.at("width");
  p.channels = p.outputs = size.at("channels"), p.features = size.at("features"), p.hidden = size.at("hidden");
  p.heads = size.at("heads"), p.layers = p.patch_h = p.patch_w = 2;
  p.complete();
  py::dict result;
  if (!choose_transformer<Half>(p)) return result;
  if (p.by_warps) return result["by_warps"] = 1, result;
  if (p.rows == 0) {
    result["sequences"] = p.sequences;
  } else {
    result["rows"] = p.rows, result["keys"] = p.keys;
  }
  result["head_group"] = p.head_group;
  return result;
}

}  // namespace

PYBIND11_MODULE(mvf_emulated, m) {
  py::register_exception<Error>(m, "Error");
  bind_primitives(m);
  bind_sm90(m);
  m.def("take_launches", &take_launches);
  m.def("transformer_tile", &transformer_tile_of);
  m.def("conv2d_tile", &conv2d_tile_of);
  m.attr("conv2d_variants") = kConv2dVariantCount;
  m.def("conv3x3_sm90_variants", [] {  // channels, inputs, outputs of a tile
    std::vector<std::array<int, 3>> variants;
    for (const Conv3x3Sm90Variant& v : kConv3x3Sm90Variants) variants.push_back({v.channels, v.inputs, v.outputs});
    return variants;
  });
  m.def(
      "set_options", [](uint32_t seed, bool watch_banks, bool idle) { Log::get().options = {seed, watch_banks, idle}; },
      py::arg("seed"), py::arg("watch_banks"), py::arg("idle") = false);
  m.def("set_tile", [](const std::vector<int>& tile) { Log::get().tile = tile; });
  m.def(
      "set_chip",
      [](int processors, int shared_bytes, int capability) {
        Log& log = Log::get();
        log.processors = processors, log.shared_bytes = shared_bytes, log.capability = capability;
      },
      py::arg("processors"), py::arg("shared_bytes"), py::arg("capability") = 80);
}
