// Products of the matrix unit from shared memory and packed weights, and what is done with their accumulators.
#pragma once

#include "cuda/sizes.h"

namespace mobilevit_fast::cuda {

// The row that a lane names to load_matrix for a 16x16 tile of rows `pitch` elements apart.
template <class T>
MVF_DEVICE const T* matrix_row(const T* tile, int pitch, int lane) {
  return tile + (lane % 16) * pitch + lane / 16 * 8;
}

// Fragments of kTiles tiles of output channels, side by side. Of two tiles a lane has 16 bytes, kWarpSize lanes after
// one another; `weights` is the lane's own of the first two.
template <int kTiles>
MVF_DEVICE void load_weights(const Bytes16* weights, uint32_t (&b)[kTiles][2]) {
  static_assert(kTiles % 2 == 0);
  MVF_UNROLL
  for (int n = 0; n < kTiles; n += 2) {
    const Bytes16 both = load_global(weights + n / 2 * kWarpSize);
    b[n][0] = both.word[0], b[n][1] = both.word[1];
    b[n + 1][0] = both.word[2], b[n + 1][1] = both.word[3];
  }
}

// x · sigmoid(x) = x/2 · (1 + tanh(x/2)): one instruction of the special-function unit, where an exponential and a
// reciprocal are two. Its error is 2^-12 of x, half of what a float16 is rounded by.
MVF_DEVICE float silu(float x) {
  const float half = 0.5f * x;
  return half + half * tanh_approximate(half);
}

MVF_DEVICE float activate(Activation activation, float x) {
  if (activation == Activation::silu) return silu(x);
  if (activation == Activation::relu) return x < 0.0f ? 0.0f : x;  // keeps not-a-number
  return x;
}

// activation(scale · x + bias) of two channels; with kSilu of silu, whatever else the activation were.
template <bool kSilu>
class Affine {
 public:
  MVF_DEVICE Affine(Float2 scale, Float2 bias) : scale_(scale), bias_(bias) {
    if (!kSilu) return;
    scale_.x *= 0.5f, scale_.y *= 0.5f, bias_.x *= 0.5f, bias_.y *= 0.5f;  // exactly, of what silu takes the half of
  }
  MVF_DEVICE Float2 operator()(Activation activation, float x, float y) const {
    const float u = x * scale_.x + bias_.x, v = y * scale_.y + bias_.y;
    if (kSilu) return {u + u * tanh_approximate(u), v + v * tanh_approximate(v)};
    return {activate(activation, u), activate(activation, v)};
  }

 private:
  Float2 scale_, bias_;
};

template <class T>
MVF_DEVICE uint32_t* words(T* numbers) {
  return reinterpret_cast<uint32_t*>(numbers);
}
template <class T>
MVF_DEVICE const uint32_t* words(const T* numbers) {
  return reinterpret_cast<const uint32_t*>(numbers);
}

}  // namespace mobilevit_fast::cuda
