// What the kernels can do to a result, and the element types that those of the CPU read and write.
#pragma once

namespace mobilevit_fast {

enum class Activation : int { none, relu, silu };

namespace cpu {

// bfloat16 is its 16 bits.
enum class Element : int { float32, bfloat16 };

}  // namespace cpu

}  // namespace mobilevit_fast
