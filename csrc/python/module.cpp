// mobilevit_fast._C: what Python needs to know of the native side. No operators: those go through torch's dispatcher.
// In Python's limited API, so that one build serves every version.
#include <ATen/dlpack.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/cpu_isa.h"
#include "cpu/packed_sizes.h"
#include "python/python.h"

using namespace mobilevit_fast::cpu;
using namespace mobilevit_fast::python;

namespace {

PyObject* build_info(PyObject*, PyObject*) {
  return guarded([] {
    Reference info(PyDict_New());
    const std::pair<const char*, const char*> entries[] = {{"version", MVF_VERSION},
                                                           {"compiler", MVF_COMPILER},
                                                           {"flags", MVF_FLAGS},
                                                           {"torch_target", MVF_TORCH_TARGET},
                                                           {"torch_built_with", MVF_TORCH_VERSION},
                                                           {"cuda", MVF_CUDA_STATE}};
    for (const auto& [name, value] : entries) check(PyDict_SetItemString(info.get(), name, text(value).get()));
    return info.release();
  });
}

PyObject* features(PyObject*, PyObject*) {
  return guarded([] {
    Reference result(PyDict_New());
    int count = 0;
    const Feature* list = cpu_features(&count);
    for (int i = 0; i < count; ++i) {
      check(PyDict_SetItemString(result.get(), list[i].name, list[i].available ? Py_True : Py_False));
    }
    return result.release();
  });
}

PyObject* available_isas(PyObject*, PyObject*) {
  return guarded([] {
    Reference names(PyList_New(0));
    for (int i = 0; i < isa_count(); ++i) {
      const Isa isa = static_cast<Isa>(i);
      if (isa_available(isa)) check(PyList_Append(names.get(), text(isa_name(isa)).get()));
    }
    return names.release();
  });
}

PyObject* chosen_isa(PyObject*, PyObject*) {
  return guarded([] { return text(isa_name(active_isa())).release(); });
}

Isa isa_from_name(const std::string& name) {
  std::string known;
  for (int i = 0; i < isa_count(); ++i) {
    if (name == isa_name(static_cast<Isa>(i))) return static_cast<Isa>(i);
    known += (i > 0 ? ", " : "") + std::string(isa_name(static_cast<Isa>(i)));
  }
  raise(PyExc_ValueError, "mobilevit_fast.set_cpu_isa: expected one of " + known + ", got '" + name + "'");
}

PyObject* choose_isa(PyObject*, PyObject* argument) {
  return guarded([&] {
    const std::string name = string_of(argument);
    if (!set_active_isa(isa_from_name(name))) {
      raise(PyExc_ValueError,
            "mobilevit_fast.set_cpu_isa: expected a variant that this machine can run, got '" + name + "'");
    }
    Py_RETURN_NONE;
  });
}

template <class Sizes>
bool find_shape(const std::string& op, const std::vector<int64_t>& sizes, bool bfloat16, PackedShape& shape) {
  if (op != Sizes::kOp) return false;
  if (sizes.size() != Numbers<Sizes>().size()) {
    raise(PyExc_ValueError, "packed_shape: expected " + std::to_string(Numbers<Sizes>().size()) + " sizes of " + op +
                                ", got " + std::to_string(sizes.size()));
  }
  Sizes given;
  std::memcpy(&given, sizes.data(), sizeof(given));
  shape = packed_shape(given, given.products(bfloat16), bfloat16);
  return true;
}

PyObject* packed_shape_of(PyObject*, PyObject* args) {
  return guarded([&]() -> PyObject* {
    const char* name = nullptr;
    PyObject* list = nullptr;
    int bfloat16 = 0;
    check(PyArg_ParseTuple(args, "sO!p:packed_shape", &name, &PyList_Type, &list, &bfloat16) ? 0 : -1);
    std::vector<int64_t> sizes;
    for_each(list, [&](PyObject* size) {
      sizes.push_back(PyLong_AsLongLong(size));
      check(PyErr_Occurred() == nullptr ? 0 : -1);
    });
    const std::string op = name;
    PackedShape shape{};
    const auto find = [&](auto... all) { return (find_shape<decltype(all)>(op, sizes, bfloat16 != 0, shape) || ...); };
    if (!find(AsppSizes(), ClassifierHeadSizes(), Conv2dSizes(), DepthwiseSizes(), InvertedResidualSizes(),
              MobileViTTransformerSizes(), SeparableSizes())) {
      raise(PyExc_ValueError, "packed_shape: expected an operator with a kernel for CPUs, got '" + op + "'");
    }
    return Py_BuildValue("(LL)", static_cast<long long>(shape.rows), static_cast<long long>(shape.numbers));
  });
}

// Modules as they are: whether every name still stands for its value in the dict of its owner, every dict of `sized`
// has its size, and every object its type. The caller holds all of them.
class Places {
 public:
  explicit Places(PyObject* args) {
    PyObject* lists[7];
    check(PyArg_ParseTuple(args, "OOOOOOO:Places", &lists[0], &lists[1], &lists[2], &lists[3], &lists[4], &lists[5],
                           &lists[6])
              ? 0
              : -1);
    zip(lists[0], lists[1], [this](PyObject* owner, PyObject* name) { entries_.push_back({owner, name, nullptr}); });
    auto entry = entries_.begin();
    zip(lists[0], lists[2], [&entry](PyObject*, PyObject* value) { (entry++)->value = value; });
    zip(lists[3], lists[4], [this](PyObject* dict, PyObject* size) {
      sized_.push_back({dict, PyLong_AsSsize_t(size)});
      check(PyErr_Occurred() == nullptr ? 0 : -1);
    });
    zip(lists[5], lists[6], [this](PyObject* object, PyObject* type) {
      typed_.push_back({object, reinterpret_cast<PyTypeObject*>(type)});
    });
  }

  bool are_unchanged() const {
    for (const auto& [owner, name, value] : entries_) {
      if (PyDict_GetItemWithError(owner, name) != value) return false;
    }
    for (const auto& [dict, size] : sized_) {
      if (PyDict_Size(dict) != size) return false;
    }
    for (const auto& [object, type] : typed_) {
      if (Py_TYPE(object) != type) return false;
    }
    return true;
  }

 private:
  struct Entry {
    PyObject *owner, *name, *value;
  };

  template <typename Visit>
  static void zip(PyObject* first, PyObject* second, Visit visit) {
    check_list(first);
    check_list(second);
    if (PyList_Size(first) != PyList_Size(second)) raise(PyExc_ValueError, "Places: expected lists of one length");
    Py_ssize_t i = 0;
    for_each(first, [&](PyObject* item) { visit(item, PyList_GetItem(second, i++)); });
  }

  std::vector<Entry> entries_;
  std::vector<std::pair<PyObject*, Py_ssize_t>> sized_;
  std::vector<std::pair<PyObject*, PyTypeObject*>> typed_;
};

PyObject* places_are_unchanged(PyObject* self, PyObject*) {
  const bool unchanged = Held<Places>::of(self).are_unchanged();
  return PyErr_Occurred() == nullptr ? PyBool_FromLong(unchanged) : nullptr;
}

// Whether an attribute that C code gives equals these values, object by object. `attribute` is the descriptor of its
// class, so that it is not looked up for each of them.
PyObject* attributes_equal(PyObject*, PyObject* args) {
  return guarded([&]() -> PyObject* {
    PyObject *attribute = nullptr, *objects = nullptr, *values = nullptr;
    check(PyArg_ParseTuple(args, "OOO:attributes_equal", &attribute, &objects, &values) ? 0 : -1);
    const auto get = reinterpret_cast<descrgetfunc>(PyType_GetSlot(Py_TYPE(attribute), Py_tp_descr_get));
    if (get == nullptr) raise(PyExc_TypeError, "attributes_equal: expected a descriptor");
    check_list(objects);
    check_list(values);
    if (PyList_Size(objects) != PyList_Size(values)) Py_RETURN_FALSE;
    for (Py_ssize_t i = 0; i < PyList_Size(objects) && i < PyList_Size(values); ++i) {
      PyObject* object = PyList_GetItem(objects, i);
      const Reference value(get(attribute, object, reinterpret_cast<PyObject*>(Py_TYPE(object))));
      const int equal = PyObject_RichCompareBool(value.get(), PyList_GetItem(values, i), Py_EQ);
      check(equal);
      if (equal == 0) Py_RETURN_FALSE;
    }
    Py_RETURN_TRUE;
  });
}

// Where tensors lie and how: addresses, types, sizes and strides, as torch's DLPack table gives them without a copy.
class Layouts {
 public:
  explicit Layouts(PyObject* args) {
    PyObject *tensors = nullptr, *table = nullptr;
    check(PyArg_ParseTuple(args, "O!O:Layouts", &PyList_Type, &tensors, &table) ? 0 : -1);
    const char* name = PyCapsule_GetName(table);
    if (name == nullptr && PyErr_Occurred() != nullptr) throw ErrorIsSet();
    const auto* exchange = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(table, name));
    if (exchange == nullptr) throw ErrorIsSet();
    if (exchange->header.version.major != DLPACK_MAJOR_VERSION) {
      raise(PyExc_BufferError, "expected DLPack " + std::to_string(DLPACK_MAJOR_VERSION) + ", got " +
                                   std::to_string(exchange->header.version.major));
    }
    describe_ = exchange->dltensor_from_py_object_no_sync;
    count_ = PyList_Size(tensors);
    for_each(tensors, [this](PyObject* tensor) {
      DLTensor found;
      if (describe_(tensor, &found) != 0) throw ErrorIsSet();
      for_each_number(found, [this](int64_t number) {
        numbers_.push_back(number);
        return true;
      });
    });
  }

  // Of the same tensors, which the caller holds.
  bool are_unchanged(PyObject* tensors) const {
    if (PyList_Size(tensors) != count_) return false;
    auto old = numbers_.begin();
    for (Py_ssize_t i = 0; i < count_; ++i) {
      DLTensor found;
      if (describe_(PyList_GetItem(tensors, i), &found) != 0) {
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
  Py_ssize_t count_ = 0;
  std::vector<int64_t> numbers_;
};

PyObject* layouts_are_unchanged(PyObject* self, PyObject* tensors) {
  return guarded([&] {
    check_list(tensors);
    return PyBool_FromLong(Held<Layouts>::of(self).are_unchanged(tensors));
  });
}

// A few elements of tensors on the CPU, whose memory the caller holds.
class Samples {
 public:
  explicit Samples(PyObject* args) {
    PyObject* numbers = nullptr;
    check(PyArg_ParseTuple(args, "O!:Samples", &PyList_Type, &numbers) ? 0 : -1);
    for_each(numbers, [this](PyObject* number) {
      unsigned long long address = 0;
      Py_ssize_t bytes = 0;
      check(PyArg_ParseTuple(number, "Kn:Samples", &address, &bytes) ? 0 : -1);
      numbers_.push_back({reinterpret_cast<const char*>(static_cast<uintptr_t>(address)), static_cast<size_t>(bytes)});
    });
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

PyObject* hash(PyObject* self, PyObject*) { return PyLong_FromUnsignedLongLong(Held<Samples>::of(self).hash()); }

PyMethodDef kFunctions[] = {
    {"build_info", build_info, METH_NOARGS, "What the libraries were built with: dict of str to str."},
    {"cpu_features", features, METH_NOARGS, "Instruction set extensions of this machine: dict of name to bool."},
    {"cpu_isas", available_isas, METH_NOARGS, "Variants of the CPU kernels that this machine can run, weakest first."},
    {"cpu_isa", chosen_isa, METH_NOARGS, "The variant that the CPU kernels use."},
    {"set_cpu_isa", choose_isa, METH_O, "Use the variant of this name from now on, in the whole process (for tests)."},
    {"packed_shape", packed_shape_of, METH_VARARGS,
     "packed_shape(op, sizes, bfloat16): shape of an operator's packed weights, by their sizes and its other numbers "
     "that packing depends on."},
    {"attributes_equal", attributes_equal, METH_VARARGS,
     "attributes_equal(attribute, objects, values): whether an attribute that C code gives has these values; its "
     "descriptor, list, list."},
    {nullptr, nullptr, 0, nullptr}};

PyMethodDef kPlacesMethods[] = {
    {"are_unchanged", places_are_unchanged, METH_NOARGS, "Whether everything is as it was."},
    {nullptr, nullptr, 0, nullptr}};

PyMethodDef kLayoutsMethods[] = {{"are_unchanged", layouts_are_unchanged, METH_O,
                                  "are_unchanged(tensors): whether these, the same, lie as they did."},
                                 {nullptr, nullptr, 0, nullptr}};

PyMethodDef kSamplesMethods[] = {{"hash", hash, METH_NOARGS, "Of the numbers as they are now."},
                                 {nullptr, nullptr, 0, nullptr}};

int add_classes(PyObject* module) {
  const auto add = [module] {
    Held<Places>::add_to(module, "mobilevit_fast._C.Places",
                         "Places(owners, names, values, sized, sizes, objects, types): modules as they are now, of "
                         "which acceleration.watch.Watch asks whether that changed.",
                         kPlacesMethods);
    Held<Layouts>::add_to(
        module, "mobilevit_fast._C.Layouts",
        "Layouts(tensors, table): where these tensors lie and how, by torch's table of functions for DLPack.",
        kLayoutsMethods);
    Held<Samples>::add_to(
        module, "mobilevit_fast._C.Samples",
        "Samples(numbers): numbers at these addresses, of so many bytes each, whose memory the caller holds.",
        kSamplesMethods);
    return module;
  };
  return guarded(add) == nullptr ? -1 : 0;
}

PyModuleDef_Slot kSlots[] = {{Py_mod_exec, reinterpret_cast<void*>(add_classes)}, {0, nullptr}};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT,
                       "_C",
                       "Build information and instruction sets of the native libraries.",
                       0,
                       kFunctions,
                       kSlots,
                       nullptr,
                       nullptr,
                       nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C() { return PyModuleDef_Init(&kModule); }
