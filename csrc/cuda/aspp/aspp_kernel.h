// The branch of an image's mean in atrous spatial pyramid pooling. It is the same for all pixels, so what the
// projection makes of it is a bias of the image: the mean, two products of a matrix and a vector. All sums are float32
// and in an order that never changes.
#pragma once

#include "aspp.h"
#include "cuda/mma/fragments.h"

namespace mobilevit_fast::cuda {

// A block sums some pixels of an image. A thread takes every kThreads / pieces-th pixel of 8 channels.
template <class T>
struct AsppSums {
  using Params = AsppPoolParams;

  static constexpr int kThreads = 256, kNumbers = (kThreads + kWarpSize) * kPieceNumbers;

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.batch * p.slices); }
  static size_t shared_bytes(const Params&) { return shared_size<float>(kNumbers); }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    visit("x", p.x, static_cast<int64_t>(sizeof(T)) * p.batch * p.pixels * p.channels);
    visit("sums", p.sums, static_cast<int64_t>(sizeof(float)) * p.batch * p.slices * p.channels);
  }

  static MVF_DEVICE void run(const Params& p) {
    const int image = block_index() / p.slices, share = ceil_div(p.pixels, p.slices);
    const int begin = block_index() % p.slices * share, end = begin + share < p.pixels ? begin + share : p.pixels;
    const int pieces = p.channels / kPieceNumbers;
    SharedMemory shared;
    float* partial = shared.template take<float>(kNumbers);  // (number of the piece, thread)
    const Bytes16* x = static_cast<const Bytes16*>(p.x) + static_cast<int64_t>(image) * p.pixels * pieces;
    float* sums = p.sums + static_cast<int64_t>(block_index()) * p.channels;
    for (int first = 0; first < pieces; first += kThreads) {
      const int together = pieces - first < kThreads ? pieces - first : kThreads, lanes = kThreads / together;
      const int piece = thread_index() % together, lane = thread_index() / together;
      const int pitch = kThreads + together % kWarpSize;  // what is added up at once lies in different banks
      float sum[kPieceNumbers] = {};
      if (lane < lanes) {
        MVF_UNROLL_SOME
        for (int pixel = begin + lane; pixel < end; pixel += lanes) {
          const Bytes16 numbers = load_written(x + static_cast<int64_t>(pixel) * pieces + first + piece);
          MVF_UNROLL
          for (int i = 0; i < kPieceNumbers / 2; ++i) {
            const Float2 both = unpack<T>(numbers.word[i]);
            sum[2 * i] += both.x, sum[2 * i + 1] += both.y;
          }
        }
      }
      MVF_UNROLL
      for (int i = 0; i < kPieceNumbers; ++i) store_shared(partial + i * pitch + thread_index(), sum[i]);
      sync_block();
      for (int at = thread_index(); at < together * kPieceNumbers; at += kThreads) {
        float total = 0.0f;
        const int number = at / together, of = at % together;
        for (int i = 0; i < lanes; ++i) total += load_shared(partial + number * pitch + i * together + of);
        store_global(sums + (first + of) * kPieceNumbers + number, total);
      }
      sync_block();  // the sums are read before the next ones come
    }
  }
};

// A block computes the biases of an image.
template <class T>
struct AsppImageBias {
  using Params = AsppPoolParams;

  static constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.batch); }
  static size_t shared_bytes(const Params& p) {
    return shared_size<float>(p.channels) + shared_size<float>(p.features);
  }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    constexpr int64_t kFloat = sizeof(float);
    visit("sums", p.sums, kFloat * p.batch * p.slices * p.channels);
    visit("image_bias", p.image_bias, kFloat * p.batch * round_up(p.outputs, kPairColumns));
    visit("pool", p.pool, static_cast<int64_t>(sizeof(T)) * p.features * p.channels);
    visit("pool_scale", p.pool_scale, kFloat * p.features);
    visit("pool_bias", p.pool_bias, kFloat * p.features);
    visit("project", p.project, static_cast<int64_t>(sizeof(T)) * p.outputs * p.features);
    visit("project_scale", p.project_scale, kFloat * p.outputs);
    visit("project_bias", p.project_bias, kFloat * p.outputs);
  }

  static MVF_DEVICE void run(const Params& p) {
    const int image = block_index(), padded = round_up(p.outputs, kPairColumns);
    SharedMemory shared;
    float* mean = shared.template take<float>(p.channels);
    float* pooled = shared.template take<float>(p.features);
    const float* sums = p.sums + static_cast<int64_t>(image) * p.slices * p.channels;
    for (int i = thread_index(); i < p.channels; i += kThreads) {
      float sum = 0.0f;
      MVF_UNROLL_SOME
      for (int slice = 0; slice < p.slices; ++slice) sum += load_written(sums + slice * p.channels + i);
      store_shared(mean + place(i, p.channels), sum / static_cast<float>(p.pixels));
    }
    sync_block();
    multiply(p.pool, p.features, p.channels, mean, [&](int row, float sum) {
      const float value = sum * load_global(p.pool_scale + row) + load_global(p.pool_bias + row);
      store_shared(pooled + place(row, p.features), activate(p.activation, value));
    });
    sync_block();
    float* bias = p.image_bias + static_cast<int64_t>(image) * padded;
    multiply(p.project, p.outputs, p.features, pooled, [&](int row, float sum) {
      store_global(bias + row, sum * load_global(p.project_scale + row) + load_global(p.project_bias + row));
    });
    for (int i = p.outputs + thread_index(); i < padded; i += kThreads) store_global(bias + i, 0.0f);
  }

 private:
  // Where a vector's element lies: what neighbouring lanes read at once lies in different banks.
  static MVF_DEVICE int place(int index, int size) {
    return index % kPieceNumbers * (size / kPieceNumbers) + index / kPieceNumbers;
  }

  // Calls visit(row, sum) with every row of a matrix times a vector, in one thread each. A warp has some rows at a
  // time.
  template <class Visit>
  static MVF_DEVICE void multiply(const Bytes16* matrix, int rows, int size, const float* vector, const Visit& visit) {
    constexpr int kTogether = 4;
    const int pieces = size / kPieceNumbers, lane = thread_index() % kWarpSize;
    for (int first = thread_index() / kWarpSize * kTogether; first < rows; first += kWarps * kTogether) {
      float sum[kTogether] = {};
      for (int piece = lane; piece < pieces; piece += kWarpSize) {
        MVF_UNROLL
        for (int r = 0; r < kTogether; ++r) {
          if (first + r >= rows) break;
          const Bytes16 numbers = load_global(matrix + static_cast<int64_t>(first + r) * pieces + piece);
          MVF_UNROLL
          for (int i = 0; i < kPieceNumbers / 2; ++i) {
            const Float2 both = unpack<T>(numbers.word[i]);
            sum[r] += both.x * load_shared(vector + 2 * i * pieces + piece);
            sum[r] += both.y * load_shared(vector + (2 * i + 1) * pieces + piece);
          }
        }
      }
      sync_warp();  // lanes without a piece are ahead
      MVF_UNROLL
      for (int r = 0; r < kTogether; ++r) {
        for (int mask = 1; mask < kWarpSize; mask *= 2) sum[r] += shuffle_xor(sum[r], mask);
        if (lane == r && first + r < rows) visit(first + r, sum[r]);
      }
    }
  }
};

}  // namespace mobilevit_fast::cuda
