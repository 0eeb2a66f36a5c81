// Dense convolutions with windows of 1x1, or 3x3 with any dilation, over channels_last images: implicit matrix products
// by wgmma. A step is a tap and a chunk of channels: the pixels of a tile that the tap sees, and its weights, come to
// shared memory by themselves. Taps that see nothing but padding take no step.
//
// A tile is 8x16 pixels, of which each of two warpgroups multiplies 64 by all outputs; one thread of a third
// starts all copies.
#pragma once

#include <iterator>
#include <utility>

#include "atrous_sm90.h"
#include "cuda/mma/fragments.h"
#include "device_sm90.h"
#include "launch_sm90.h"
#include "wgmma.h"

namespace mobilevit_fast::cuda {

template <class T, int kChunk, int kOutputs>
struct AtrousSm90 {
  struct Params : AtrousSm90Params {
    TensorMap map;
    int tiles, processors;
  };

  // Two warpgroups multiply, a thread of a third one fetches, which has registers to give away.
  static constexpr int kThreads = 3 * 128, kCluster = 1, kRegisters = 0;
  static constexpr int kMultiplyRegisters = 232, kFetchRegisters = 40;
  static constexpr int kWidth = kAtrousSm90Width, kHeight = kAtrousSm90Height;
  static constexpr int kRow = kChunk * 2;  // bytes of a pixel or an output in a step
  static constexpr int kPixelBytes = kWidth * kHeight * kRow, kWeightBytes = kOutputs * kRow;
  static constexpr int kStage = kPixelBytes + kWeightBytes, kStages = (216 << 10) / kStage;
  static constexpr Swizzle kSwizzle = kChunk == 32 ? kSwizzle64 : kSwizzle32;
  static_assert(kOutputs % 32 == 0, "a lane stores eight of 32 outputs");

  static MVF_HOST_DEVICE int across(const Params& p) { return ceil_div(p.width, kWidth); }
  static MVF_HOST_DEVICE int down(const Params& p) { return ceil_div(p.height, kHeight); }
  static unsigned blocks(const Params& p) {
    return static_cast<unsigned>(p.tiles < p.processors ? p.tiles : p.processors);
  }
  static size_t shared_bytes(const Params&) { return 1024 + kStages * (kStage + 16); }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const size_t pixels = static_cast<size_t>(p.images) * p.height * p.width;
    visit("x", p.x, pixels * p.channels * sizeof(T));
    visit("y", p.y, pixels * p.count * kOutputs * sizeof(T));
    if (p.image_bias != nullptr) visit("image_bias", p.image_bias, size_t{4} * p.images * kOutputs);
    constexpr const char* kWeights[] = {"weight0", "weight1", "weight2", "weight3"};
    constexpr const char* kScales[] = {"scale0", "scale1", "scale2", "scale3"};
    constexpr const char* kBiases[] = {"bias0", "bias1", "bias2", "bias3"};
    for (int i = 0; i < p.count; ++i) {
      const AtrousSm90Convolution& c = p.convolutions[i];
      visit(kWeights[i], c.weight, static_cast<size_t>(c.taps) * p.channels * kOutputs * sizeof(T));
      visit(kScales[i], c.scale, kOutputs * sizeof(float)), visit(kBiases[i], c.bias, kOutputs * sizeof(float));
    }
  }

  static Params make_params(const AtrousSm90Params& given, int processors) {
    Params p{};
    static_cast<AtrousSm90Params&>(p) = given;
    p.tiles = p.count * p.images * across(p) * down(p), p.processors = processors;
    return p;
  }
  static bool encode_map(Params& p) {
    return encode(p.map, ImageBox{p.x, p.images, p.height, p.width, p.channels, 1, kHeight, kWidth, kChunk, kSwizzle});
  }

  static MVF_DEVICE void run(const Params& p) {
    const uint32_t stages = (shared_memory_begin() + 1023) / 1024 * 1024;
    const uint32_t full = stages + kStages * kStage, empty = full + kStages * 8;
    const int warp = warp_uniform(thread_index() / kWarpSize);  // the compiler shall know that it is one number
    if (thread_index() == 0) {
      for (int i = 0; i < kStages; ++i) barrier_init(full + i * 8, 1), barrier_init(empty + i * 8, 8);
      barrier_init_fence();
    }
    sync_block();
    grid_launch_dependents();
    if (warp < 8) {
      take_registers<kMultiplyRegisters>();
      multiply(p, stages, full, empty, warp / 4);
    } else {
      give_registers<kFetchRegisters>();
      if (thread_index() == 8 * kWarpSize) fetch(p, stages, full, empty);
    }
  }

 private:
  // A convolution and the first pixel of its tile: convolutions one after the other, so that processors ask for the
  // same weights, and the first, which is the 1x1 of ASPP, last.
  struct Place {
    int convolution, image, top, left;

    MVF_DEVICE Place(const Params& p, int tile) {
      const int each = p.images * across(p) * down(p), at = tile % each;
      convolution = (tile / each + 1) % p.count;
      image = at / (across(p) * down(p)), top = at / across(p) % down(p) * kHeight, left = at % across(p) * kWidth;
    }
  };

  // Rows and columns from a pixel to that which a tap sees.
  static MVF_DEVICE int row_of(const AtrousSm90Convolution& c, int tap) {
    return c.taps > 1 ? (tap / 3 - 1) * c.rate : 0;
  }
  static MVF_DEVICE int column_of(const AtrousSm90Convolution& c, int tap) {
    return c.taps > 1 ? (tap % 3 - 1) * c.rate : 0;
  }
  static MVF_DEVICE bool sees(const Params& p, const AtrousSm90Convolution& c, const Place& place, int tap) {
    const int row = place.top + row_of(c, tap), column = place.left + column_of(c, tap);
    return row > -kHeight && row < p.height && column > -kWidth && column < p.width;
  }

  static MVF_DEVICE void fetch(const Params& p, uint32_t stages, uint32_t full, uint32_t empty) {
    prefetch_map(&p.map);
    grid_wait();
    int stage = 0, parity = 1;
    const int chunks = p.channels / kChunk;
    for (int tile = block_index(); tile < p.tiles; tile += p.processors) {
      const Place place(p, tile);
      const AtrousSm90Convolution& c = p.convolutions[place.convolution];
      for (int tap = 0; tap < c.taps; ++tap) {
        if (!sees(p, c, place, tap)) continue;
        const int row = place.top + row_of(c, tap), column = place.left + column_of(c, tap);
        const Bytes16* weight = c.weight + tap * chunks * (kWeightBytes / 16);
        for (int chunk = 0; chunk < chunks; ++chunk) {
          const uint32_t to = stages + stage * kStage, barrier = full + stage * 8;
          barrier_wait(empty + stage * 8, parity);
          barrier_expect(barrier, kStage);
          copy_tile(to, &p.map, chunk * kChunk, column, row, place.image, barrier);
          copy_bulk(to + kPixelBytes, weight + chunk * (kWeightBytes / 16), kWeightBytes, barrier);
          if (++stage == kStages) stage = 0, parity ^= 1;
        }
      }
    }
  }

  // A descriptor with another low word, which begins with the address in units of 16 bytes.
  static MVF_DEVICE uint64_t with_low(uint32_t low, uint64_t rest) { return (rest & ~uint64_t{0xffffffff}) | low; }

  using Sums = float[kOutputs / 2];

  static MVF_DEVICE void multiply(const Params& p, uint32_t stages, uint32_t full, uint32_t empty, int group) {
    constexpr uint64_t kRows = matrix_descriptor(0, 16, 8 * kRow, kSwizzle);
    int stage = 0, parity = 0;
    const int chunks = p.channels / kChunk;
    const auto release = [&](int read) {
      if (read >= 0 && thread_index() % kWarpSize == 0) barrier_arrive(empty + read * 8);
    };
    grid_wait();
    for (int tile = block_index(); tile < p.tiles; tile += p.processors) {
      const Place place(p, tile);
      const AtrousSm90Convolution& c = p.convolutions[place.convolution];
      Sums sums = {};
      int last = -1;  // the stage that products before read
      for (int tap = 0; tap < c.taps; ++tap) {
        if (!sees(p, c, place, tap)) continue;
        for (int chunk = 0; chunk < chunks; ++chunk) {
          const uint32_t from = stages + stage * kStage;
          const uint32_t a = (from + group * (kPixelBytes / 2)) >> 4 | static_cast<uint32_t>(kRows);
          const uint32_t b = (from + kPixelBytes) >> 4 | static_cast<uint32_t>(kRows);
          barrier_wait(full + stage * 8, parity);
          wgmma_fence();
          MVF_UNROLL
          for (int k = 0; k < kChunk / 16; ++k) {
            Wgmma<T, kOutputs>::ss(sums, with_low(a + k * 2, kRows), with_low(b + k * 2, kRows), 1);
          }
          wgmma_commit();
          wgmma_wait<1>();
          release(last);
          last = stage;
          if (++stage == kStages) stage = 0, parity ^= 1;
        }
      }
      wgmma_wait<0>();
      release(last);
      keep(sums);
      store(p, c, place, sums, group);
    }
  }

  // Of 32 outputs a lane has eight neighbouring ones, as the weights' rows are packed.
  static MVF_DEVICE void store(const Params& p, const AtrousSm90Convolution& c, const Place& place, const Sums& sums,
                               int group) {
    const int warp = thread_index() / kWarpSize % 4, lane = thread_index() % kWarpSize;
    const int row = place.top + group * 8 + warp * 2, column = place.left + lane / 4;
    const int64_t pixel = static_cast<int64_t>(place.image * p.height + row) * p.width + column,
                  pitch = p.count * kOutputs;
    T* y = static_cast<T*>(p.y) + pixel * pitch + place.convolution * kOutputs + lane % 4 * 8;
    const float* scales = c.scale + lane % 4 * 8;
    const float* biases = c.bias + lane % 4 * 8;
    const float* image_biases = p.image_bias + static_cast<int64_t>(place.image) * kOutputs + lane % 4 * 8;
    if (column >= p.width) return;
    MVF_UNROLL
    for (int n = 0; n < kOutputs; n += 32) {
      float scale[8], bias[8];
      MVF_UNROLL
      for (int i = 0; i < 2; ++i) {
        spread(load_global(reinterpret_cast<const Float4*>(scales + n) + i), scale + 4 * i);
        if (p.image_bias == nullptr) {
          spread(load_global(reinterpret_cast<const Float4*>(biases + n) + i), bias + 4 * i);
        } else {
          spread(load_result(reinterpret_cast<const Float4*>(image_biases + n) + i), bias + 4 * i);
        }
      }
      MVF_UNROLL
      for (int i = 0; i < 2; ++i) {
        if (row + i >= p.height) continue;
        Bytes16 eight;
        MVF_UNROLL
        for (int e = 0; e < 4; ++e) {
          const float* sum = sums + n / 2 + e * 4 + i * 2;
          eight.word[e] = pack<T>(activate(p.activation, sum[0] * scale[2 * e] + bias[2 * e]),
                                  activate(p.activation, sum[1] * scale[2 * e + 1] + bias[2 * e + 1]));
        }
        store_global(reinterpret_cast<Bytes16*>(y + i * p.width * pitch + n), eight);
      }
    }
  }
  static MVF_DEVICE void spread(const Float4& v, float* to) { to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w; }
};

// Launches the kernel of so many outputs.
template <class T, int kOutputs>
cudaError_t launch_atrous_sm90(const AtrousSm90Params& params, cudaStream_t stream) {
  const auto start = [&](auto kernel) {
    using Kernel = decltype(kernel);
    typename Kernel::Params p = Kernel::make_params(params, current_chip().processors);
    return Kernel::encode_map(p) ? launch_sm90<Kernel>(p, stream) : cudaErrorInvalidValue;
  };
  const int chunk = atrous_sm90_chunk(params.channels);
  if (chunk == 32) return start(AtrousSm90<T, 32, kOutputs>());
  return chunk == 16 ? start(AtrousSm90<T, 16, kOutputs>()) : cudaErrorInvalidValue;
}

template <class T, size_t... kNumber>
cudaError_t find_atrous_sm90(const AtrousSm90Params& p, cudaStream_t stream, std::index_sequence<kNumber...>) {
  cudaError_t status = cudaErrorInvalidValue;
  ((p.outputs == kAtrousSm90Outputs[kNumber] &&
    (status = launch_atrous_sm90<T, kAtrousSm90Outputs[kNumber]>(p, stream), true)) ||
   ...);
  return status;
}

template <class T>
cudaError_t atrous_sm90(const AtrousSm90Params& params, cudaStream_t stream) {
  return find_atrous_sm90<T>(params, stream, std::make_index_sequence<std::size(kAtrousSm90Outputs)>());
}

}  // namespace mobilevit_fast::cuda
