// The emulator's primitives for compute capability 9.0, for tests of its own.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "sm90_primitives.h"

namespace py = pybind11;
using namespace mobilevit_fast::cuda;
using mobilevit_fast::emulator::Log;

namespace {

// Launches with arrays that are in blocks of their own; what they did comes from take_launches.
template <class Kernel>
void launch_on(typename Kernel::Params params, const py::array& from, const py::array& to) {
  Copied source(from), target(to);
  params.from = source.data(), params.from_bytes = from.nbytes();
  params.to = target.data(), params.to_bytes = to.nbytes();
  launch_sm90<Kernel>(params, nullptr);
}
template <class Kernel>
void launch_plain(const py::array& from, const py::array& to) {
  launch_on<Kernel>({}, from, to);
}

template <bool kLeft>
void probe(bool transposed, const std::array<int, 4>& matrix, const py::array& to) {
  ProbeParams params{{}, matrix[0], matrix[1], matrix[2], matrix[3]};
  const py::array_t<float> nothing(1);
  (transposed ? launch_on<Probe<kLeft, 1>> : launch_on<Probe<kLeft, 0>>)(params, nothing, to);
}

template <class T, bool kRegistersHoldLeft>
void multiply(int n, const py::array& from, const py::array& to) {
  switch (n) {
#define MVF_CASE(N) \
  case N:           \
    return launch_plain<ProductOf<T, N, kRegistersHoldLeft>>(from, to)
    MVF_CASE(8);
    MVF_CASE(48);
    MVF_CASE(64);
    MVF_CASE(96);
    MVF_CASE(144);
    MVF_CASE(256);
#undef MVF_CASE
    default:
      throw py::value_error("no such product");
  }
}

void copy_box(const std::array<int, 4>& shape, const std::array<int, 4>& box, int swizzle,
              const std::array<int, 4>& place, const py::array& from, const py::array& to) {
  Copied source(from), target(to);
  BoxParams params{};
  params.from = source.data(), params.from_bytes = from.nbytes();
  params.to = target.data(), params.to_bytes = to.nbytes();
  const ImageBox images{params.from, shape[0], shape[1], shape[2], shape[3], box[0], box[1], box[2], box[3], swizzle};
  if (!encode(params.map, images)) throw py::value_error("no tensor map for such a box");
  params.bytes = static_cast<int>(to.nbytes());
  params.image = place[0], params.row = place[1], params.column = place[2], params.channel = place[3];
  launch_sm90<CopyBox>(params, nullptr);
}

}  // namespace

void bind_sm90(py::module_& m) {
  m.def("probe_left", &probe<true>);
  m.def("probe_right", &probe<false>);
  m.def("multiply_sm90", [](int n, bool bfloat16, bool registers, const py::array& from, const py::array& to) {
    const auto run = bfloat16    ? registers ? multiply<BFloat16, true> : multiply<BFloat16, false>
                     : registers ? multiply<Half, true>
                                 : multiply<Half, false>;
    run(n, from, to);
  });
  m.def("copy_box", &copy_box);
  m.def("move_matrices", &launch_plain<MoveMatrices>);
}
