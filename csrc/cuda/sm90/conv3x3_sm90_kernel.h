// Dense 3x3 convolution with padding 1 over channels_last images, of one tensor or of the channels of two, with scale,
// bias and SiLU: an implicit matrix product by wgmma. 64 pixels, a square of 8x8, are the rows of a product, all
// outputs its columns. Pixels lie in shared memory once, with their halo; a tap is a shifted view of them.
//
// Two warpgroups multiply; one thread of a ninth warp starts the copies of images, one of a tenth those of weights.
#pragma once

#include "conv3x3_sm90.h"
#include "cuda/sizes.h"
#include "device_sm90.h"
#include "wgmma.h"

namespace mobilevit_fast::cuda {

template <class T, int kVariant>
struct Conv3x3Sm90 {
  struct Params : Conv3x3Sm90Params {
    TensorMap map, map2;  // of x and x2, a box being the chunk of a tile with its halo
    int tiles, blocks_;
  };

  static constexpr Conv3x3Sm90Variant kV = kConv3x3Sm90Variants[kVariant];
  static constexpr int kThreads = 2 * 128 + 2 * kWarpSize, kCluster = 1, kRegisters = 168;

  static constexpr int kChannels = kV.channels, kOutputs = kV.outputs, kSplit = kV.parts();
  static constexpr int kStages = kV.stages;
  static constexpr bool kTurns = kV.takes_turns();
  static constexpr int kSharers = kTurns ? 1 : 2;           // warpgroups of a tile
  static constexpr int kSquares = kV.squares() / kSharers;  // of a warpgroup
  static constexpr int kRow = kV.chunk * 2;                 // bytes of a pixel in a stage
  static constexpr int kEach = kChannels / kV.chunk, kChunks = kEach * kV.inputs;
  static constexpr int kParts = 9 / kV.taps, kPieces = kChunks * kParts;
  static constexpr Swizzle kSwizzle = kV.chunk == 32 ? kSwizzle64 : kSwizzle32;
  static constexpr int kHaloW = 8 * kV.across + 2, kHaloH = 8 * kV.down + 2;

  static constexpr int kBytes = kHaloW * kHaloH * kV.images * kRow;               // of a stage
  static constexpr int kStage = (kBytes + 8 * kRow - 1) / (8 * kRow) * 8 * kRow;  // begins where the swizzle does
  static constexpr int kTap = kOutputs * kRow, kPiece = kV.taps * kTap;
  static constexpr int kSlots = kTurns ? kPieces : kV.ring;  // of pieces in shared memory
  static constexpr int kBarriers = 2 * kStages + 2 * kSlots;
  static constexpr int kShared = 1024 + kSlots * kPiece + kStages * kStage + 2 * kChannels * 4 + kBarriers * 8;
  static_assert((kV.chunk == 16 || kV.chunk == 32) && kChannels % kV.chunk == 0 && kOutputs % 16 == 0);
  static_assert(kOutputs == kChannels || (kOutputs == kConv3x3Sm90Part && kChannels % kOutputs == 0));
  static_assert(kShared <= 227 << 10 && 9 % kV.taps == 0 && kSlots >= kParts);

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.blocks_); }
  static size_t shared_bytes(const Params&) { return kShared; }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const size_t bytes = static_cast<size_t>(p.images) * p.height * p.width * kChannels * sizeof(T);
    visit("x", p.x, bytes);
    if (kV.inputs > 1) visit("x2", p.x2, bytes);
    visit("y", p.y, bytes);
    visit("weight", p.weight, static_cast<size_t>(kV.weight_bytes()));
    visit("scale", p.scale, kChannels * sizeof(float));
    visit("bias", p.bias, kChannels * sizeof(float));
  }

  static Params make_params(const Conv3x3Sm90Params& given, int processors) {
    Params p{};
    static_cast<Conv3x3Sm90Params&>(p) = given;
    if (kSplit > 1) p.weight += kV.weight_bytes() / sizeof(Bytes16);  // behind those of all outputs together
    p.tiles = static_cast<int>(conv3x3_sm90_tiles(kV, p.images, p.height, p.width));
    p.blocks_ = p.tiles < processors ? p.tiles : processors;
    return p;
  }
  static bool encode_maps(Params& p) {
    const auto box = [&](const void* x) {
      return ImageBox{x, p.images, p.height, p.width, kChannels, kV.images, kHaloH, kHaloW, kV.chunk, kSwizzle};
    };
    return encode(p.map, box(p.x)) && encode(p.map2, box(p.x2));
  }

  static MVF_DEVICE void run(const Params& p) {
    const Memory memory;
    const int warp = warp_uniform(thread_index() / kWarpSize);  // the compiler shall know that it is one number
    if (thread_index() == 0) memory.init();
    for (int i = thread_index(); i < kChannels; i += kThreads) {  // halved, exactly: silu(2 u) = u + u tanh(u)
      store_shared_at(memory.scale + i * 4, 0.5f * load_global(p.scale + i));
      store_shared_at(memory.bias + i * 4, 0.5f * load_global(p.bias + i));
    }
    sync_block();
    grid_launch_dependents();
    if (warp < 8) {
      multiply(p, memory, warp / 4);
    } else if (thread_index() % kWarpSize == 0) {
      warp == 8 ? fetch_images(p, memory) : fetch_weights(p, memory);
    }
  }

 private:
  // Addresses in shared memory: pieces of weights, stages of input, and their barriers. A stage is full or empty, a
  // piece ready or, in a ring, done.
  struct Memory {
    uint32_t weights, stages, scale, bias, full, empty, ready, done;

    MVF_DEVICE Memory() {
      weights = (shared_memory_begin() + 1023) / 1024 * 1024;
      stages = weights + kSlots * kPiece;
      scale = stages + kStages * kStage, bias = scale + kChannels * 4;
      full = bias + kChannels * 4, empty = full + kStages * 8;
      ready = empty + kStages * 8, done = ready + kSlots * 8;
    }
    // Each warp that has ended reading arrives once.
    MVF_DEVICE void init() const {
      for (int i = 0; i < kStages; ++i) barrier_init(full + i * 8, 1), barrier_init(empty + i * 8, 4 * kSharers);
      for (int i = 0; i < kSlots; ++i) barrier_init(ready + i * 8, 1);
      for (int i = 0; i < (kTurns ? 0 : kSlots); ++i) barrier_init(done + i * 8, 4 * kSharers);
      barrier_init_fence();
    }
  };

  // The first pixel of a tile, and which part of the outputs it has: all parts of the same pixels come one after the
  // other.
  struct Place {
    int left, top, image, part;

    MVF_DEVICE Place(const Params& p, int tile) {
      const int across = ceil_div(p.width, 8 * kV.across), down = ceil_div(p.height, 8 * kV.down);
      const int square = tile / kSplit;
      part = tile % kSplit;
      left = square % across * 8 * kV.across, top = square / across % down * 8 * kV.down;
      image = square / (across * down) * kV.images;
    }
  };

  static MVF_DEVICE void fetch_images(const Params& p, const Memory& memory) {
    prefetch_map(&p.map);
    if (kV.inputs > 1) prefetch_map(&p.map2);
    grid_wait();
    int stage = 0, parity = 1;
    for (int tile = block_index(); tile < p.tiles; tile += p.blocks_) {
      const Place place(p, tile);
      for (int c = 0; c < kChunks; ++c) {
        const uint32_t full = memory.full + stage * 8;
        barrier_wait(memory.empty + stage * 8, parity);
        barrier_expect(full, kBytes);
        copy_tile(memory.stages + stage * kStage, c < kEach ? &p.map : &p.map2, c % kEach * kV.chunk, place.left - 1,
                  place.top - 1, place.image, full);
        if (++stage == kStages) stage = 0, parity ^= 1;
      }
    }
  }

  // Pieces in the order in which they are used, before the kernel before has ended; all of them once where they stay.
  static MVF_DEVICE void fetch_weights(const Params& p, const Memory& memory) {
    int slot = 0, parity = 1;
    for (int tile = block_index(); tile < (kTurns ? block_index() + 1 : p.tiles); tile += p.blocks_) {
      const int first = tile % kSplit * kPieces;
      for (int piece = first; piece < first + kPieces; ++piece) {
        const uint32_t ready = memory.ready + slot * 8;
        if (!kTurns) barrier_wait(memory.done + slot * 8, parity);
        barrier_expect(ready, kPiece);
        copy_bulk(memory.weights + slot * kPiece, p.weight + piece * (kPiece / 16), kPiece, ready);
        if (++slot == kSlots) slot = 0, parity ^= 1;
      }
    }
  }

  // A descriptor with another low word, which begins with the address in units of 16 bytes.
  static MVF_DEVICE uint64_t with_low(uint32_t low, uint64_t rest) { return (rest & ~uint64_t{0xffffffff}) | low; }

  static MVF_DEVICE void arrive(uint32_t barrier) {
    if (barrier != 0 && thread_index() % kWarpSize == 0) barrier_arrive(barrier);
  }

  using Sums = float[kSquares][kOutputs / 2];

  // A square's rows of eight pixels are a row of the halo apart.
  static constexpr uint64_t kPixelRows = matrix_descriptor(0, 16, kHaloW* kRow, kSwizzle);
  static constexpr uint64_t kOutputRows = matrix_descriptor(0, 16, 8 * kRow, kSwizzle);

  // The products of one piece of weights; `pixels` and `outputs` are the low words of a stage's and the piece's
  // descriptors. A tap is one pixel or one row further into the stage.
  static MVF_DEVICE void multiply_piece(Sums& sums, uint32_t pixels, uint32_t outputs,
                                        const uint32_t (&origin)[kSquares], int c, int part) {
    wgmma_fence();
    MVF_UNROLL
    for (int j = 0; j < kV.taps; ++j) {
      const int row = (part * kV.taps + j) / 3, column = (part * kV.taps + j) % 3;
      MVF_UNROLL
      for (int k = 0; k < kV.chunk / 16; ++k) {
        MVF_UNROLL
        for (int i = 0; i < kSquares; ++i) {
          const uint32_t a = pixels + origin[i] + ((row * kHaloW + column) * kRow + k * 32) / 16;
          const uint32_t b = outputs + (j * kTap + k * 32) / 16;
          Wgmma<T, kOutputs>::ss(sums[i], with_low(a, kPixelRows), with_low(b, kOutputRows), c > 0 || part + j + k > 0);
        }
      }
    }
    wgmma_commit();
  }

  static MVF_DEVICE void multiply(const Params& p, const Memory& memory, int group) {
    constexpr int kBoth = 256;  // threads at the barriers by which the groups pass the turn to each other
    uint32_t origin[kSquares];  // 16 bytes each, from a stage's begin to a square's first tap
    MVF_UNROLL
    for (int i = 0; i < kSquares; ++i) {
      const int square = (kTurns ? 0 : group * kSquares) + i;
      const int column = square % kV.across * 8, row = square / kV.across % kV.down * 8;
      origin[i] = ((square / (kV.across * kV.down) * kHaloH + row) * kHaloW + column) * kRow / 16;
    }
    grid_wait();
    if (kTurns && group == 1) named_barrier_arrive(1, kBoth);
    const int step = kTurns ? 2 * p.blocks_ : p.blocks_;
    int at = kTurns ? group * kChunks : 0, slot = 0, turn = 0;  // `at`: chunk of all that the block fetches
    for (int tile = block_index() + (kTurns ? group * p.blocks_ : 0); tile < p.tiles; tile += step) {
      Sums sums = {};
      uint32_t last_piece = 0, last_stage = 0;  // barriers of what the products before read
      if (kTurns) named_barrier_sync(1 + group, kBoth);
      for (int c = 0; c < kChunks; ++c, ++at) {
        const int stage = at % kStages;
        barrier_wait(memory.full + stage * 8, at / kStages & 1);
        MVF_UNROLL
        for (int part = 0; part < kParts; ++part) {
          if (kTurns) slot = c * kParts + part;
          barrier_wait(memory.ready + slot * 8, turn);
          multiply_piece(sums, (memory.stages + stage * kStage) >> 4 | static_cast<uint32_t>(kPixelRows),
                         (memory.weights + slot * kPiece) >> 4 | static_cast<uint32_t>(kOutputRows), origin, c, part);
          wgmma_wait<1>();
          arrive(last_piece), arrive(last_stage);
          last_piece = kTurns ? 0 : memory.done + slot * 8;
          last_stage = part == kParts - 1 ? memory.empty + stage * 8 : 0;
          if (!kTurns && ++slot == kSlots) slot = 0, turn ^= 1;
        }
      }
      if (kTurns) {
        if (tile + p.blocks_ < p.tiles) named_barrier_arrive(2 - group, kBoth);
        at += kChunks;
      }
      wgmma_wait<0>();
      arrive(last_piece), arrive(last_stage);
      MVF_UNROLL
      for (int i = 0; i < kSquares; ++i) keep(sums[i]);
      store_tile_of(p, memory, sums, tile, kTurns ? 0 : group * kSquares);
    }
  }

  static MVF_DEVICE void store_tile_of(const Params& p, const Memory& memory, const Sums& sums, int tile, int first) {
    const Place place(p, tile);
    const int warp = thread_index() / kWarpSize % 4, lane = thread_index() % kWarpSize;
    int pixels[2 * kSquares];  // of all images, below 0 where there is none: two of a lane in every square
    MVF_UNROLL
    for (int i = 0; i < 2 * kSquares; ++i) {
      const int square = first + i / 2;
      const int row = place.top + square / kV.across % kV.down * 8 + warp * 2 + i % 2;
      const int column = place.left + square % kV.across * 8 + lane / 4;
      const int image = place.image + square / (kV.across * kV.down);
      const bool is_there = row < p.height && column < p.width && (kV.images == 1 || image < p.images);
      pixels[i] = is_there ? (image * p.height + row) * p.width + column : -1;
    }
    const int output = place.part * kOutputs;
    MVF_UNROLL
    for (int n = 0; n + 32 <= kOutputs; n += 32) store<4>(p, memory, sums, n, output, pixels);
    if constexpr (kOutputs % 32 == 16) store<2>(p, memory, sums, kOutputs - 16, output, pixels);
  }

  // The outputs of kTiles tiles of 8 from column n on, of which a lane has 2 * kTiles neighbouring ones, as the
  // weights' rows are packed; `first` is the output of column 0.
  template <int kTiles>
  static MVF_DEVICE void store(const Params& p, const Memory& memory, const Sums& sums, int n, int first,
                               const int (&pixels)[2 * kSquares]) {
    const int output = first + n + thread_index() % 4 * 2 * kTiles;
    Float2 scale[kTiles], bias[kTiles];
    MVF_UNROLL
    for (int e = 0; e < kTiles; ++e) {
      scale[e] = load_shared_at<Float2>(memory.scale + output * 4 + e * 8);
      bias[e] = load_shared_at<Float2>(memory.bias + output * 4 + e * 8);
    }
    MVF_UNROLL
    for (int i = 0; i < 2 * kSquares; ++i) {
      if (pixels[i] < 0) continue;
      uint32_t word[kTiles];
      MVF_UNROLL
      for (int e = 0; e < kTiles; ++e) {
        const float* sum = sums[i / 2] + n / 2 + e * 4 + i % 2 * 2;
        const float u = sum[0] * scale[e].x + bias[e].x, v = sum[1] * scale[e].y + bias[e].y;
        word[e] = pack<T>(u + u * tanh_approximate(u), v + v * tanh_approximate(v));
      }
      T* y = static_cast<T*>(p.y) + static_cast<int64_t>(pixels[i]) * kChannels + output;
      if constexpr (kTiles == 4) {
        store_global(reinterpret_cast<Bytes16*>(y), Bytes16{{word[0], word[1], word[2], word[3]}});
      } else {
        store_global(reinterpret_cast<Bytes8*>(y), Bytes8{{word[0], word[1]}});
      }
    }
  }
};

// Calls visit(K()) with the kernel of a variant; false, calling nothing, where there is none.
template <class T, int kVariant = 0, class Visit>
bool with_conv3x3_sm90_kernel(int variant, const Visit& visit) {
  if constexpr (kVariant < kConv3x3Sm90VariantCount) {
    if (variant == kVariant) {
      visit(Conv3x3Sm90<T, kVariant>());
      return true;
    }
    return with_conv3x3_sm90_kernel<T, kVariant + 1>(variant, visit);
  }
  return false;
}

}  // namespace mobilevit_fast::cuda
