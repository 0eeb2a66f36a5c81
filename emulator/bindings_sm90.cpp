// The emulator's primitives for compute capability 9.0, for tests of its own.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "sm90_cases.h"

namespace py = pybind11;
using namespace mobilevit_fast::cuda;
using mobilevit_fast::emulator::Log;

namespace {

// What it did comes from take_launches.
void run_case(const std::string& name, const std::vector<int>& numbers, const py::array& from, const py::array& to) {
  Copied source(from), target(to);
  const Arrays arrays{source.data(), target.data(), from.nbytes(), to.nbytes()};
  if (launch_case(name, numbers, arrays) != cudaSuccess) throw py::value_error("no such primitive: " + name);
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
    {"moved_load", Sm90Fault::moved_load},
    {"outside_of_shared_memory", Sm90Fault::outside_of_shared_memory},
    {"remote_after_the_end", Sm90Fault::remote_after_the_end},
    {"remote_not_waited_for", Sm90Fault::remote_not_waited_for},
};

void run_faulty(Sm90Fault fault, const py::array& from, const py::array& weight, const py::array& to) {
  Copied source(from), factor(weight), target(to);
  launch_sm90<Pipeline<true>>(
      {source.data(), factor.data(), target.data(), from.nbytes(), weight.nbytes(), to.nbytes(), fault}, nullptr);
}

}  // namespace

void bind_sm90(py::module_& m) {
  m.def("run_case", &run_case);
  py::enum_<Sm90Fault> faults(m, "Sm90Fault");
  for (const auto& [name, fault] : kFaults) faults.value(name, fault);
  m.def("run_faulty", &run_faulty);
  py::enum_<PhaseFault>(m, "PhaseFault")
      .value("none", PhaseFault::none)
      .value("missed", PhaseFault::missed)
      .value("taken_twice", PhaseFault::taken_twice)
      .value("overtaken", PhaseFault::overtaken);
  m.def("run_phases", [](PhaseFault fault) { launch_sm90<Phases>({fault}, nullptr); });
}
