// mobilevit_fast._C: what Python needs to know of the native side. No operators: those go through torch's dispatcher.
#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "mobilevit_fast/conv2d_bias_act.h"
#include "mobilevit_fast/cpu_isa.h"

namespace py = pybind11;
using namespace mobilevit_fast::cpu;

namespace {

using Pair = std::pair<int64_t, int64_t>;

Isa isa_from_name(const std::string& name) {
  std::string known;
  for (int i = 0; i < isa_count(); ++i) {
    if (name == isa_name(static_cast<Isa>(i))) return static_cast<Isa>(i);
    known += (i > 0 ? ", " : "") + std::string(isa_name(static_cast<Isa>(i)));
  }
  throw py::value_error("mobilevit_fast.set_cpu_isa: expected one of " + known + ", got '" + name + "'");
}

py::dict build_info() {
  py::dict info;
  info["version"] = MVF_VERSION;
  info["compiler"] = MVF_COMPILER;
  info["flags"] = MVF_FLAGS;
  info["torch_target"] = MVF_TORCH_TARGET;
  info["torch_built_with"] = MVF_TORCH_VERSION;
  info["cuda"] = MVF_CUDA_STATE;
  return info;
}

py::dict features() {
  py::dict result;
  int count = 0;
  const Feature* list = cpu_features(&count);
  for (int i = 0; i < count; ++i) result[list[i].name] = list[i].available;
  return result;
}

py::list available_isas() {
  py::list names;
  for (int i = 0; i < isa_count(); ++i) {
    if (isa_available(static_cast<Isa>(i))) names.append(isa_name(static_cast<Isa>(i)));
  }
  return names;
}

void choose_isa(const std::string& name) {
  if (!set_active_isa(isa_from_name(name))) {
    throw py::value_error("mobilevit_fast.set_cpu_isa: expected a variant that this machine can run, got '" + name +
                          "'");
  }
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build information and instruction sets of the native libraries.";
  m.def("build_info", &build_info, "What the libraries were built with: dict of str to str.");
  m.def("cpu_features", &features, "Instruction set extensions of this machine: dict of name to bool.");
  m.def("cpu_isas", &available_isas, "Variants of the CPU kernels that this machine can run, weakest first.");
  m.def("cpu_isa", [] { return isa_name(active_isa()); }, "The variant that the CPU kernels use.");
  m.def(
      "word_factors", [](bool bfloat16, bool even) { return word_factors(product_isa(active_isa(), bfloat16, even)); },
      py::arg("bfloat16"), py::arg("even"),
      "Factors of matrix products in a 32-bit word of packed weights: of this type, with even numbers of products.");
  m.def(
      "multiplies_tiles",
      [](bool bfloat16, bool even) { return multiplies_tiles(product_isa(active_isa(), bfloat16, even)); },
      py::arg("bfloat16"), py::arg("even"), "Whether matrix products of this type are computed in tiles.");
  m.def(
      "conv2d_taps",
      [](int64_t outputs, int64_t channels, Pair kernel, Pair stride, Pair dilation) {
        return packed_taps(
            outputs, channels,
            {kernel.first, kernel.second, stride.first, stride.second, 0, 0, dilation.first, dilation.second}, false);
      },
      py::arg("outputs"), py::arg("channels"), py::arg("kernel"), py::arg("stride"), py::arg("dilation"),
      "Packed weights of an output and a channel of conv2d_bias_act, where it does not multiply in tiles.");
  m.def("set_cpu_isa", &choose_isa, py::arg("name"), "Use this variant from now on, in the whole process (for tests).");
}
