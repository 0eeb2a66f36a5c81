// The emulator's primitives for compute capability 9.0, for tests of its own.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "sm90_faults.h"
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

constexpr std::pair<const char*, Sm90Fault> kFaults[] = {
    {"none", Sm90Fault::none},
    {"factor_without_fence", Sm90Fault::factor_without_fence},
    {"result_without_fence", Sm90Fault::result_without_fence},
    {"sums_read_early", Sm90Fault::sums_read_early},
    {"sums_without_fence", Sm90Fault::sums_without_fence},
    {"products_not_waited_for", Sm90Fault::products_not_waited_for},
    {"lanes_disagree", Sm90Fault::lanes_disagree},
    {"warps_missing", Sm90Fault::warps_missing},
    {"factor_overwritten", Sm90Fault::factor_overwritten},
    {"piece_released_early", Sm90Fault::piece_released_early},
    {"piece_read_early", Sm90Fault::piece_read_early},
    {"result_overwritten", Sm90Fault::result_overwritten},
    {"expects_too_much", Sm90Fault::expects_too_much},
    {"expects_too_little", Sm90Fault::expects_too_little},
    {"too_many_arrivals", Sm90Fault::too_many_arrivals},
    {"init_without_fence", Sm90Fault::init_without_fence},
    {"barrier_overwritten", Sm90Fault::barrier_overwritten},
    {"store_left_in_flight", Sm90Fault::store_left_in_flight},
    {"named_barrier_of_two_sizes", Sm90Fault::named_barrier_of_two_sizes},
    {"registers_beyond_the_block", Sm90Fault::registers_beyond_the_block},
    {"no_grid_wait", Sm90Fault::no_grid_wait},
    {"outside_of_shared_memory", Sm90Fault::outside_of_shared_memory},
    {"remote_after_the_end", Sm90Fault::remote_after_the_end},
    {"remote_not_waited_for", Sm90Fault::remote_not_waited_for},
};

void run_faulty(Sm90Fault fault, const py::array& from, const py::array& weight, const py::array& to) {
  Copied source(from), factor(weight), target(to);
  launch_sm90<Faulty>({source.data(), factor.data(), target.data(), from.nbytes(), weight.nbytes(), to.nbytes(), fault},
                      nullptr);
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
  py::enum_<Sm90Fault> faults(m, "Sm90Fault");
  for (const auto& [name, fault] : kFaults) faults.value(name, fault);
  m.def("run_faulty", &run_faulty);
  py::enum_<PhaseFault>(m, "PhaseFault")
      .value("none", PhaseFault::none)
      .value("missed", PhaseFault::missed)
      .value("taken_twice", PhaseFault::taken_twice)
      .value("overtaken", PhaseFault::overtaken);
  m.def("run_phases", [](PhaseFault fault) { launch_sm90<Phases>({fault}, nullptr); });
  m.def("copy_box", &copy_box);
  m.def("move_matrices", &launch_plain<MoveMatrices>);
}
