// What the kernels can do to a result, and the element types they read and write.
#pragma once

namespace mobilevit_fast::cpu {

enum class Activation : int { none, relu, silu };

// bfloat16 is its 16 bits.
enum class Element : int { float32, bfloat16 };

}  // namespace mobilevit_fast::cpu
