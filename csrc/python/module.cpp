// mobilevit_fast._C: what Python needs to know of the native side. No operators: those go through torch's dispatcher.
#include <ATen/dlpack.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "cpu/cpu_isa.h"
#include "cpu/packed_sizes.h"

namespace py = pybind11;
using namespace mobilevit_fast::cpu;

namespace {

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

using Shape = std::pair<int64_t, int64_t>;

template <class Sizes>
bool find_shape(const std::string& op, const std::vector<int64_t>& sizes, bool bfloat16, Shape& shape) {
  if (op != Sizes::kOp) return false;
  if (sizes.size() != Numbers<Sizes>().size()) {
    throw py::value_error("packed_shape: expected " + std::to_string(Numbers<Sizes>().size()) + " sizes of " + op +
                          ", got " + std::to_string(sizes.size()));
  }
  Sizes given;
  std::memcpy(&given, sizes.data(), sizeof(given));
  const PackedShape found = packed_shape(given, given.products(bfloat16), bfloat16);
  shape = {found.rows, found.numbers};
  return true;
}

Shape packed_shape_of(const std::string& op, const std::vector<int64_t>& sizes, bool bfloat16) {
  Shape shape;
  const auto find = [&](auto... all) { return (find_shape<decltype(all)>(op, sizes, bfloat16, shape) || ...); };
  if (!find(AsppSizes(), ClassifierHeadSizes(), Conv2dSizes(), DepthwiseSizes(), InvertedResidualSizes(),
            MobileViTTransformerSizes(), SeparableSizes())) {
    throw py::value_error("packed_shape: expected an operator with a kernel for CPUs, got '" + op + "'");
  }
  return shape;
}

// Whether every name of `names` still stands for the object of `values` in the dict of `owners`, every dict of `sized`
// has its size, and every object of `objects` its type.
bool are_in_place(const py::list& owners, const py::list& names, const py::list& values, const py::list& sized,
                  const py::list& sizes, const py::list& objects, const py::list& types) {
  const auto item = [](const py::list& list, Py_ssize_t i) { return PyList_GET_ITEM(list.ptr(), i); };
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(owners.ptr()); ++i) {
    if (PyDict_GetItemWithError(item(owners, i), item(names, i)) != item(values, i)) return false;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(sized.ptr()); ++i) {
    if (PyDict_Size(item(sized, i)) != PyLong_AsSsize_t(item(sizes, i))) return false;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects.ptr()); ++i) {
    if (reinterpret_cast<PyObject*>(Py_TYPE(item(objects, i))) != item(types, i)) return false;
  }
  return true;
}

// Where tensors lie and how: addresses, types, sizes and strides, as torch's DLPack table gives them without a copy.
class Layouts {
 public:
  Layouts(const py::list& tensors, const py::capsule& table) {
    const auto* exchange = table.get_pointer<DLPackExchangeAPI>();
    if (exchange->header.version.major != DLPACK_MAJOR_VERSION) {
      throw py::buffer_error("expected DLPack " + std::to_string(DLPACK_MAJOR_VERSION) + ", got " +
                             std::to_string(exchange->header.version.major));
    }
    describe_ = exchange->dltensor_from_py_object_no_sync;
    for (const py::handle tensor : tensors) {
      DLTensor found;
      if (describe_(tensor.ptr(), &found) != 0) throw py::error_already_set();
      for_each_number(found, [this](int64_t number) {
        numbers_.push_back(number);
        return true;
      });
    }
  }

  // Of the same tensors, which the caller holds.
  bool are_unchanged(const py::list& tensors) const {
    auto old = numbers_.begin();
    for (const py::handle tensor : tensors) {
      DLTensor found;
      if (describe_(tensor.ptr(), &found) != 0) {
        PyErr_Clear();
        return false;
      }
      // The rank comes first: with another one, the numbers end where those of this tensor do.
      if (!for_each_number(found, [&old](int64_t number) { return number == *old++; })) return false;
    }
    return true;
  }

 private:
  template <typename Visit>
  static bool for_each_number(const DLTensor& tensor, Visit visit) {
    int64_t type = 0;
    std::memcpy(&type, &tensor.dtype, sizeof(tensor.dtype));
    if (!visit(tensor.ndim) || !visit(type)) return false;
    if (!visit(static_cast<int64_t>(reinterpret_cast<uintptr_t>(tensor.data) + tensor.byte_offset))) return false;
    for (int32_t i = 0; i < tensor.ndim; ++i) {
      if (!visit(tensor.shape[i]) || !visit(tensor.strides[i])) return false;
    }
    return true;
  }

  DLPackDLTensorFromPyObjectNoSync describe_;
  std::vector<int64_t> numbers_;
};

// A few elements of tensors on the CPU, whose memory the caller holds.
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
  m.def("packed_shape", &packed_shape_of, py::arg("op"), py::arg("sizes"), py::arg("bfloat16"),
        "Shape of an operator's packed weights, by their sizes and its other numbers that packing depends on.");
  m.def("are_in_place", &are_in_place, py::arg("owners"), py::arg("names"), py::arg("values"), py::arg("sized"),
        py::arg("sizes"), py::arg("objects"), py::arg("types"),
        "What acceleration.watch.Watch asks of modules, in one call.");
  py::class_<Layouts>(m, "Layouts", "Where these tensors lie and how, by torch's table of functions for DLPack.")
      .def(py::init<const py::list&, const py::capsule&>(), py::arg("tensors"), py::arg("table"))
      .def("are_unchanged", &Layouts::are_unchanged, py::arg("tensors"));
  py::class_<Samples>(m, "Samples", "Numbers at these addresses, of so many bytes each, whose memory the caller holds.")
      .def(py::init<const std::vector<std::pair<uintptr_t, size_t>>&>())
      .def("hash", &Samples::hash, "Of the numbers as they are now.");
  m.def("set_cpu_isa", &choose_isa, py::arg("name"), "Use this variant from now on, in the whole process (for tests).");
}
