// torch.ops.mobilevit_fast.program.cuda: a model's kernels in one call, each with its own checks.
#include "program.h"

#include "cuda/binding.h"

namespace mobilevit_fast::cuda {
namespace {

Tensor program_op(Tensor images, std::vector<Tensor> packed, std::vector<int64_t> code) {
  ProgramReader reader(code, packed);
  check(!reader.places().empty(), "mobilevit_fast.program: expected a place for the images, got none");
  reader.places()[0] = images;
  Tensor result = images;
  while (!reader.at_end()) {
    const size_t kernel = ProgramReader::within(reader.number(), kProgramKernelCount);
    Tensor& target = reader.place();
    result = program_step(kernel)(reader);
    target = result;
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mobilevit_fast, MVF_DISPATCH_KEY, m) { m.impl("program.cuda", TORCH_BOX(&program_op)); }

}  // namespace mobilevit_fast::cuda
