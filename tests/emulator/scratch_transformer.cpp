// The transformer stack's kernels as a Python module of their own. Arrays are copied into heap blocks of their exact
// size and back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>

#include "mobilevit_transformer_tiles.h"

namespace py = pybind11;
using namespace mobilevit_fast::cuda;
using mobilevit_fast::emulator::Device;

namespace {

using Numpy = std::map<std::string, py::array>;
using Sizes = std::map<std::string, double>;

struct Arrays {
  explicit Arrays(const Numpy& numpy) : given(numpy) {
    for (const auto& [name, array] : given) {
      blocks[name].reset(new char[array.nbytes()]);
      std::memcpy(blocks[name].get(), array.data(), array.nbytes());
    }
  }
  ~Arrays() {
    for (auto& [name, array] : given) std::memcpy(array.mutable_data(), blocks[name].get(), array.nbytes());
  }
  template <class T>
  void set(T*& pointer, const char* name) {
    if (blocks.count(name) > 0) pointer = reinterpret_cast<T*>(blocks.at(name).get());
  }
  Numpy given;
  std::map<std::string, std::unique_ptr<char[]>> blocks;
};

MobileViTTransformerParams params_of(Arrays& arrays, const Sizes& sizes) {
  MobileViTTransformerParams p{};
  arrays.set(p.x, "x"), arrays.set(p.y, "y");
  arrays.set(p.in_weight, "in_weight"), arrays.set(p.in_bias, "in_bias");
  arrays.set(p.norm1_weight, "norm1_weight"), arrays.set(p.norm1_bias, "norm1_bias");
  arrays.set(p.qkv_weight, "qkv_weight"), arrays.set(p.qkv_bias, "qkv_bias");
  arrays.set(p.proj_weight, "proj_weight"), arrays.set(p.proj_bias, "proj_bias");
  arrays.set(p.norm2_weight, "norm2_weight"), arrays.set(p.norm2_bias, "norm2_bias");
  arrays.set(p.fc1_weight, "fc1_weight"), arrays.set(p.fc1_bias, "fc1_bias");
  arrays.set(p.fc2_weight, "fc2_weight"), arrays.set(p.fc2_bias, "fc2_bias");
  arrays.set(p.norm_weight, "norm_weight"), arrays.set(p.norm_bias, "norm_bias");
  arrays.set(p.out_weight, "out_weight"), arrays.set(p.out_scale, "out_scale"), arrays.set(p.out_bias, "out_bias");
  const auto size = [&](const char* name) { return static_cast<int>(sizes.at(name)); };
  p.batch = size("batch"), p.height = size("height"), p.width = size("width"), p.channels = size("channels");
  p.features = size("features"), p.hidden = size("hidden"), p.outputs = size("outputs"), p.heads = size("heads");
  p.layers = size("layers"), p.patch_h = size("patch_h"), p.patch_w = size("patch_w");
  p.eps = static_cast<float>(sizes.at("eps")), p.score_scale = static_cast<float>(sizes.at("score_scale"));
  p.mlp_activation = static_cast<Activation>(size("mlp_activation"));
  p.out_activation = static_cast<Activation>(size("out_activation"));
  p.head_group = size("head_group"), p.sequences = size("sequences"), p.rows = size("rows"), p.keys = size("keys");
  p.complete();
  return p;
}

template <class Kernel>
void run(Device& device, const MobileViTTransformerParams& p, Arrays& arrays) {
  device.arrays.clear();
  Kernel::arrays(p, [&](const char* name, const void* pointer, size_t bytes) {
    if (pointer == nullptr) return;
    for (const auto& [other, array] : arrays.given) {
      if (arrays.blocks.at(other).get() == pointer && static_cast<size_t>(array.nbytes()) != bytes) {
        throw py::value_error(std::string(name) + ": expected " + std::to_string(array.nbytes()) + " bytes, got " +
                              std::to_string(bytes));
      }
    }
    device.add(name, pointer, bytes);
  });
  mobilevit_fast::emulator::launch(device, Kernel::blocks(p), Kernel::kThreads, Kernel::shared_bytes(p),
                                   [&] { Kernel::run(p); });
}

template <class T>
py::dict run_all(const Numpy& given, const Sizes& sizes, uint32_t seed, bool watch_banks) {
  Device device({seed, watch_banks});
  Arrays arrays(given);
  MobileViTTransformerParams p = params_of(arrays, sizes);
  py::dict result;
  std::map<std::string, std::pair<uint64_t, uint64_t>> moved;
  const auto launch = [&](auto kernel) {
    using Kernel = decltype(kernel);
    run<Kernel>(device, p, arrays);
    for (const auto& array : device.arrays) {
      moved[array.name].first += array.read, moved[array.name].second += array.written;
    }
    result["shared_bytes"] = Kernel::shared_bytes(p), result["blocks"] = Kernel::blocks(p);
  };
  if (p.rows == 0) {
    if (!with_transformer_stack<T>(p, launch)) throw py::value_error("no kernel holds so much");
  } else {
    const size_t residual = p.residual_numbers() * sizeof(T), qkv = p.qkv_numbers() * sizeof(T);
    std::unique_ptr<char[]> residuals[2], qkvs[2];
    for (int i = 0; i < 2; ++i) {
      residuals[i].reset(new char[residual]), qkvs[i].reset(new char[qkv]);
      std::memset(residuals[i].get(), 0xff, residual), std::memset(qkvs[i].get(), 0xff, qkv);
    }
    for (p.launch = 0; p.launch <= p.layers; ++p.launch) {
      const int to = p.launch % 2;
      p.residual_out = residuals[to].get(), p.qkv_out = qkvs[to].get();
      p.residual_in = residuals[1 - to].get(), p.qkv_in = qkvs[1 - to].get();
      if (!with_transformer_layer<T>(p, launch)) throw py::value_error("no kernel holds so much");
    }
  }
  for (const auto& [name, bytes] : moved) result[name.c_str()] = py::make_tuple(bytes.first, bytes.second);
  result["products"] = device.counts.products, result["exponentials"] = device.counts.exponentials;
  result["wavefronts"] = device.counts.wavefronts, result["conflicts"] = device.counts.conflicts;
  return result;
}

}  // namespace

PYBIND11_MODULE(mvf_scratch_transformer, m) {
  m.def("combine", [](py::array_t<float> x, py::array_t<float> y) {
    Device device({});
    float *left = x.mutable_data(), *right = y.mutable_data();
    mobilevit_fast::emulator::launch(device, 1, static_cast<unsigned>(x.size()), 0, [&] {
      const int i = thread_index();
      const float root = reciprocal_root(left[i]);
      right[i] = maximum(left[i], right[i]), left[i] = root;
    });
  });
  m.def("choose", [](const Sizes& sizes, int processors, size_t shared_bytes) {
    Arrays none({});
    MobileViTTransformerParams p = params_of(none, sizes);
    py::dict result;
    const Chip chip{processors, shared_bytes};
    p.rows = 0;
    if (choose_transformer_stack<Half>(p, chip)) {
      result["sequences"] = p.sequences;
    } else if (choose_transformer_layer<Half>(p, chip)) {
      result["rows"] = p.rows, result["keys"] = p.keys;
    } else {
      return result;
    }
    result["head_group"] = p.head_group;
    return result;
  });
  m.def("mobilevit_transformer",
        [](const Numpy& arrays, const Sizes& sizes, bool bfloat16, uint32_t seed, bool watch_banks) {
          return (bfloat16 ? run_all<BFloat16> : run_all<Half>)(arrays, sizes, seed, watch_banks);
        });
}
