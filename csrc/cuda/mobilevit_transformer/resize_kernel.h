// Bilinear resizing of channels_last images, corners not aligned, with an activation of the result: for transformers on
// images that are no whole number of patches.
#pragma once

#include "cuda/mma/fragments.h"
#include "resize.h"

namespace mobilevit_fast::cuda {

// A thread computes 8 channels of an output pixel.
template <class T>
struct Resize {
  using Params = ResizeParams;

  static constexpr int kThreads = 256;

  static MVF_HOST_DEVICE int64_t pieces(const Params& p) {
    return int64_t{1} * p.batch * p.out_h * p.out_w * (p.channels / kPieceNumbers);
  }
  static unsigned blocks(const Params& p) { return static_cast<unsigned>((pieces(p) + kThreads - 1) / kThreads); }
  static size_t shared_bytes(const Params&) { return 0; }

  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    constexpr int64_t kBytes = sizeof(T);
    visit("x", p.x, kBytes * p.batch * p.height * p.width * p.channels);
    visit("y", p.y, kBytes * p.batch * p.out_h * p.out_w * p.channels);
  }

  static MVF_DEVICE void run(const Params& p) {
    const int64_t index = static_cast<int64_t>(block_index()) * kThreads + thread_index();
    if (index >= pieces(p)) return;
    const int count = p.channels / kPieceNumbers;
    const int64_t pixel = index / count, line = pixel / p.out_w, image = line / p.out_h;
    const Between row(static_cast<int>(line % p.out_h), p.height, p.out_h);
    const Between column(static_cast<int>(pixel % p.out_w), p.width, p.out_w);

    float sum[kPieceNumbers] = {};
    const auto add = [&](int y, int x, float weight) {
      const int64_t at = ((image * p.height + y) * p.width + x) * count + index % count;
      const Bytes16 piece = load_written(static_cast<const Bytes16*>(p.x) + at);
      MVF_UNROLL
      for (int i = 0; i < kPieceNumbers / 2; ++i) {
        const Float2 both = unpack<T>(piece.word[i]);
        sum[2 * i] += weight * both.x, sum[2 * i + 1] += weight * both.y;
      }
    };
    add(row.first, column.first, (1.0f - row.share) * (1.0f - column.share));
    add(row.first, column.second, (1.0f - row.share) * column.share);
    add(row.second, column.first, row.share * (1.0f - column.share));
    add(row.second, column.second, row.share * column.share);

    Bytes16 result;
    MVF_UNROLL
    for (int i = 0; i < kPieceNumbers / 2; ++i) {
      result.word[i] = pack<T>(activate(p.activation, sum[2 * i]), activate(p.activation, sum[2 * i + 1]));
    }
    store_global(static_cast<Bytes16*>(p.y) + index, result);
  }

 private:
  // The two neighbours of an output coordinate, and the share of the second one.
  struct Between {
    int first, second;
    float share;

    MVF_DEVICE Between(int at, int size, int out) {
      const float source =
          (static_cast<float>(at) + 0.5f) * (static_cast<float>(size) / static_cast<float>(out)) - 0.5f;
      const float inside = source < 0.0f ? 0.0f : source;
      first = static_cast<int>(inside) < size - 1 ? static_cast<int>(inside) : size - 1;
      second = first < size - 1 ? first + 1 : first;
      share = inside - static_cast<float>(first);
    }
  };
};

}  // namespace mobilevit_fast::cuda
