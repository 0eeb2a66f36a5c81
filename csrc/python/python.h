// The part of Python's C interface that is the same for every version from 3.11 on (its limited API), in the C++ that
// module.cpp is written in: references that end with their scope, errors as exceptions, classes.
#pragma once

#include <Python.h>

#include <cstddef>
#include <exception>
#include <new>
#include <string>
#include <utility>

namespace mobilevit_fast::python {

// Python's error indicator is set already.
struct ErrorIsSet {};

[[noreturn]] inline void raise(PyObject* kind, const std::string& message) {
  PyErr_SetString(kind, message.c_str());
  throw ErrorIsSet();
}

// An owned reference.
class Reference {
 public:
  // Takes over what a function of Python returned; a null pointer is its error.
  explicit Reference(PyObject* object) : object_(object) {
    if (object == nullptr) throw ErrorIsSet();
  }
  ~Reference() { Py_XDECREF(object_); }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;

  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }

 private:
  PyObject* object_;
};

inline void check(int status) {
  if (status < 0) throw ErrorIsSet();
}

inline Reference text(const std::string& characters) {
  return Reference(PyUnicode_FromStringAndSize(characters.data(), static_cast<Py_ssize_t>(characters.size())));
}

inline std::string string_of(PyObject* object) {
  Py_ssize_t size = 0;
  const char* characters = PyUnicode_AsUTF8AndSize(object, &size);
  if (characters == nullptr) throw ErrorIsSet();
  return std::string(characters, static_cast<size_t>(size));
}

// What a function of the module does: C++ exceptions become errors of Python.
template <typename Body>
PyObject* guarded(Body body) {
  try {
    return body();
  } catch (const ErrorIsSet&) {
    return nullptr;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

inline void check_list(PyObject* object) {
  if (!PyList_Check(object)) raise(PyExc_TypeError, "expected a list");
}

// Calls visit(item) for every item of a list.
template <typename Visit>
void for_each(PyObject* list, Visit visit) {
  check_list(list);
  for (Py_ssize_t i = 0; i < PyList_Size(list); ++i) visit(PyList_GetItem(list, i));
}

// A Python object that holds a `T`, made by T(args), a tuple, and never changed.
template <typename T>
struct Held {
  PyObject_HEAD T* value;

  static const T& of(PyObject* self) { return *reinterpret_cast<Held*>(self)->value; }

  static PyObject* make(PyTypeObject* type, PyObject* args, PyObject* keywords) {
    return guarded([&] {
      if (keywords != nullptr && PyDict_Size(keywords) > 0) {
        raise(PyExc_TypeError, "expected arguments by position, got them by name");
      }
      const auto allocate = reinterpret_cast<allocfunc>(PyType_GetSlot(type, Py_tp_alloc));
      Reference self(allocate(type, 0));
      reinterpret_cast<Held*>(self.get())->value = new T(args);
      return self.release();
    });
  }

  static void free(PyObject* self) {
    PyTypeObject* type = Py_TYPE(self);
    delete reinterpret_cast<Held*>(self)->value;
    reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);  // as instances of types made at run time hold theirs
  }

  static void add_to(PyObject* module, const char* name, const char* doc, PyMethodDef* methods) {
    PyType_Slot slots[] = {{Py_tp_doc, const_cast<char*>(doc)},
                           {Py_tp_new, reinterpret_cast<void*>(&make)},
                           {Py_tp_dealloc, reinterpret_cast<void*>(&free)},
                           {Py_tp_methods, methods},
                           {0, nullptr}};
    PyType_Spec spec = {name, sizeof(Held), 0, Py_TPFLAGS_DEFAULT, slots};
    Reference type(PyType_FromSpec(&spec));
    check(PyModule_AddType(module, reinterpret_cast<PyTypeObject*>(type.get())));
  }
};

}  // namespace mobilevit_fast::python
