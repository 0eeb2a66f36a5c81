// mobilevit_fast._C: what Python needs to know of the native side. No operators: those go through torch's dispatcher.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "cpu/conv2d_bias_act/conv2d_bias_act.h"
#include "cpu/cpu_isa.h"

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

// Whether every name of `names` still stands for the value of `values` in the dict of `owners`, every dict of `sized`
// has its size, every module dict of `modules` is in evaluation mode without a forward of its own, and no dict of
// `hooks` has an entry.
bool is_in_place(const py::list& owners, const py::list& names, const py::list& values, const py::list& sized,
                 const std::vector<Py_ssize_t>& sizes, const py::list& modules, const py::list& hooks) {
  static PyObject *const training = PyUnicode_InternFromString("training"), *const forward =
                                                                                PyUnicode_InternFromString("forward");
  const auto item = [](const py::list& list, Py_ssize_t i) { return PyList_GET_ITEM(list.ptr(), i); };
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(owners.ptr()); ++i) {
    if (PyDict_GetItemWithError(item(owners, i), item(names, i)) != item(values, i)) return false;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(sized.ptr()); ++i) {
    if (PyDict_Size(item(sized, i)) != sizes[static_cast<size_t>(i)]) return false;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(hooks.ptr()); ++i) {
    if (PyDict_Size(item(hooks, i)) > 0) return false;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(modules.ptr()); ++i) {
    if (PyDict_GetItemWithError(item(modules, i), training) != Py_False) return false;
    if (PyDict_GetItemWithError(item(modules, i), forward) != nullptr) return false;
  }
  return true;
}

// A few numbers of tensors on the CPU, whose memory the caller holds.
class Samples {
 public:
  explicit Samples(const std::vector<std::pair<uintptr_t, size_t>>& numbers) {
    for (const auto& [address, bytes] : numbers) numbers_.push_back({reinterpret_cast<const char*>(address), bytes});
  }

  uint64_t hash() const {
    uint64_t hash = 0;
    for (const auto& [data, bytes] : numbers_) {
      uint64_t number = 0;
      std::memcpy(&number, data, bytes < sizeof(number) ? bytes : sizeof(number));
      hash = (hash ^ number) * 0x9e3779b97f4a7c15u;
      hash ^= hash >> 29;
    }
    return hash;
  }

 private:
  std::vector<std::pair<const char*, size_t>> numbers_;
};

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
  m.def("is_in_place", &is_in_place, py::arg("owners"), py::arg("names"), py::arg("values"), py::arg("sized"),
        py::arg("sizes"), py::arg("modules"), py::arg("hooks"),
        "What acceleration.watch.Watch asks of dicts, in one call.");
  py::class_<Samples>(m, "Samples", "Numbers at these addresses, of so many bytes each, whose memory the caller holds.")
      .def(py::init<const std::vector<std::pair<uintptr_t, size_t>>&>())
      .def("hash", &Samples::hash, "Of the numbers as they are now.");
  m.def("set_cpu_isa", &choose_isa, py::arg("name"), "Use this variant from now on, in the whole process (for tests).");
}
