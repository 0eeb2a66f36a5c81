// Inverted residual by strips: a warp goes down 16 columns of an image, two rows of results at a time, and needs no
// other warp. The weights of the layer are in shared memory. What rows of input add to rows of results below them waits
// there too, each lane's own, so that no row is expanded twice but those above a warp's first. Of the 16 columns the
// outer two are neighbours only, except at an image's edges.
//
// A lane has the pixels 2q and 2q + 1 of the columns, q = lane / 4, and of 8 channels the pair t = lane % 4: let the
// upper rows of the matrix unit's operands be the even pixels and the lower ones the odd ones, and the expansion leaves
// two neighbours of two channels in a lane, whose other neighbours lanes 4 before and 4 behind it have; what the
// depthwise convolution makes of them is an operand of the projection. Neither tensor goes to memory.
//
// The depthwise convolution of float16 accumulates in float16, two channels at a time. That of bfloat16, which has too
// few bits for it, is done by the matrix unit in float32, and expanded rows wait in place of accumulators. None of the
// instructions is compute capability 9.0's own, but for those of the dependent launch.
#pragma once

#include "cuda/mma/fragments.h"
#include "strips_step.h"

namespace mobilevit_fast::cuda {

// Whether weights come by ldmatrix, and what waits in words of 8 bytes: as strips.py packs them.
constexpr bool kStripsMatrixLoads = false;

template <class T, int kChannels, int kExpanded, int kOutputs, int kStride, int kWarps, bool kMatrixLoads,
          bool kAnyWarps>
class Strips {
 public:
  using Params = StripsParams;

  static constexpr int kThreads = kWarps * kWarpSize, kCluster = 1, kRegisters = 0;  // with kAnyWarps at most

  static unsigned blocks(const Params& p) { return static_cast<unsigned>(p.blocks); }
  static unsigned threads(const Params& p) { return static_cast<unsigned>(warps(p) * kWarpSize); }
  static size_t shared_bytes(const Params& p) {
    return shared_size<uint8_t>(kSize.words() * 16 + warps(p) * kWaitingBytes);
  }
  template <class Visit>
  static void arrays(const Params& p, const Visit& visit) {
    const int64_t pixels = int64_t{1} * p.batch * p.height * p.width;
    visit("x", p.x, pixels * kChannels * 2);
    visit("y", p.y, pixels / (kStride * kStride) * kOutputs * 2);
    visit("weights", p.weights, int64_t{16} * kSize.words());
  }

  static MVF_DEVICE void run(const Params& p) {
    Strips warp(p, shared_memory_begin());
    grid_wait();
    warp.go_down();
  }

 private:
  using Step = StripStep<T, kChannels, kExpanded, kOutputs, kStride, kMatrixLoads>;
  using Input = typename Step::Input;
  using Sums = typename Step::Sums;
  static constexpr StripsChannels kSize = Step::kSize;
  static constexpr int kRows = Step::kRows, kSteps = Step::kSteps;
  static constexpr int kRun = kOutputs % 32 == 0 ? 4 : kOutputs % 16 == 0 ? 2 : 1;  // words that a lane stores at once
  // Whether there are registers for the next rows, too. Else these come to the second-level cache ahead, but for
  // float16 on compute capability 9.0, which was measured without.
  static constexpr bool kAhead = kRows * kSteps <= (kAnyWarps ? 8 : 16) && !(Step::kDiagonals && kStride == 2);
  static constexpr int kWaitingBytes = Step::kChunks * Step::kWaitingBytes;  // of a warp
  static_assert(kChannels % 8 == 0 && kExpanded % 16 == 0 && kOutputs % 8 == 0 &&
                kSize.words() * 16 + kWarps * kWaitingBytes <= 227 << 10);

  using Words = std::conditional_t<kRun == 4, Bytes16, Bytes8>;

  // Of a block.
  static MVF_HOST_DEVICE int warps(const Params& p) { return kAnyWarps ? p.warps : kWarps; }
  static MVF_DEVICE int warp_index() { return thread_index() / kWarpSize; }

  MVF_DEVICE Strips(const Params& p, uint32_t shared)
      : p_(p),
        step_(shared, shared + kSize.words() * 16 + warp_index() * kWaitingBytes),
        result_affine_(shared + (kSize.result_affine() + thread_index() % 4) * 16) {
    grid_launch_dependents();
    for (int i = thread_index(); i < kSize.words(); i += warps(p) * kWarpSize)
      copy_async_at(shared + i * 16, p.weights + i, true);
    commit_async();
    wait_async<0>();
    sync_block();
  }

  // All pairs of rows that are the warp's: every warp has the same share of those of all strips.
  MVF_DEVICE void go_down() {
    const int64_t units = p_.units(kStride), warps = int64_t{1} * p_.blocks * Strips::warps(p_);
    const int warp = block_index() * Strips::warps(p_) + warp_index();
    const int end = static_cast<int>(units * (warp + 1) / warps), iterations = p_.iterations(kStride);
    for (int unit = static_cast<int>(units * warp / warps); unit < end;) {
      const int first = unit % iterations, last = iterations < first + end - unit ? iterations : first + end - unit;
      go_down(unit / iterations, first, last);
      unit += last - first;
    }
  }

  // Pairs of rows of one strip.
  MVF_DEVICE void go_down(int strip, int first, int last) {
    const int lane = thread_index() % kWarpSize, q = lane / 4, t = lane % 4;
    const int group = strip / p_.strips, at = strip % p_.strips * p_.step + 2 * q;
    const int image = group * p_.together + at / p_.width, column = at % p_.width;
    const bool there = at < p_.together * p_.width && image < p_.batch;
    const bool is_first = column == 0, is_last = column + 2 == p_.width;
    step_.begin(is_first, is_last);
    has_[0] = there && (q > 0 || is_first), has_[1] = there && (q < 7 || is_last);
    const bool edge = any_lane(is_first || (kStride == 1 && is_last));
    const T* x = static_cast<const T*>(p_.x);
    x += (int64_t{1} * image * p_.height * p_.width + column) * kChannels + 4 * t;
    const int out_h = p_.height / kStride, out_w = p_.width / kStride;
    const int64_t y = (int64_t{1} * image * out_h * out_w + column / kStride) * kOutputs + t * 2 * kRun;
    // The rows before the first ones have no results, but add to what waits. With stride 1 and i = -1 the upper one of
    // them is outside of the image.
    int i = kStride == 2 && first == 0 ? 0 : first - 1;
    Input in, next;
    if constexpr (kAhead) load(x, there, t, i * kRows + (kStride == 1), next);
    MVF_NO_UNROLL
    for (; i < last; ++i) {
      const int row = i * kRows + (kStride == 1);
      if constexpr (kAhead) {
        MVF_UNROLL
        for (int j = 0; j < kRows * kSteps * 4; ++j) {
          in[j / 4 / kSteps][j / 4 % kSteps][j % 4] = next[j / 4 / kSteps][j / 4 % kSteps][j % 4];
        }
        if (i + 1 < last) load(x, there, t, row + kRows, next);
      } else {
        load(x, there, t, row, in);
        if ((Step::kDiagonals || kAnyWarps) && i + 1 < last) prefetch(x, there, t, row + kRows);
      }
      Sums sums = {};
      const bool upper = row >= 0 && row < p_.height, lower = row + 1 < p_.height;
      if (edge || (kStride == 1 && !(upper && lower))) {
        step_.template add<true>(in, upper ? ~0u : 0u, lower ? ~0u : 0u, sums);
      } else {
        step_.template add<false>(in, ~0u, ~0u, sums);
      }
      if (i >= first) store(sums, y + int64_t{kRowsTogether} * i * y_row(), out_h - kRowsTogether * i);
    }
  }

  // Elements from row to row.
  MVF_DEVICE int x_row() const { return p_.width * kChannels; }
  MVF_DEVICE int y_row() const { return p_.width / kStride * kOutputs; }

  // Rows of input as operands; zeros where there are none. A lane's four channels are neighbours, and so are the rows
  // of weights that they are multiplied by.
  MVF_DEVICE void load(const T* x, bool there, int t, int first, Input& in) const {
    MVF_UNROLL
    for (int r = 0; r < kRows; ++r) {
      MVF_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        Bytes8 u = {}, v = {};
        const bool inside = there && first + r >= 0 && first + r < p_.height;
        if (inside && (kChannels % 16 == 0 || s * 16 + t * 4 < kChannels)) {
          const T* at = x + int64_t{1} * (first + r) * x_row() + 16 * s;
          if constexpr (kAhead) {
            u = load_result(reinterpret_cast<const Bytes8*>(at));
            v = load_result(reinterpret_cast<const Bytes8*>(at + kChannels));
          } else {  // into the registers of operands: pairs of them would be copied for every chunk
            u = {{load_result(words(at)), load_result(words(at + 2))}};
            v = {{load_result(words(at + kChannels)), load_result(words(at + kChannels + 2))}};
          }
        }
        in[r][s][0] = u.word[0], in[r][s][2] = u.word[1], in[r][s][1] = v.word[0], in[r][s][3] = v.word[1];
      }
    }
  }

  // The four lanes of two pixels share out their lines of the cache.
  MVF_DEVICE void prefetch(const T* x, bool there, int t, int first) const {
    static_assert(kChannels <= 128);
    MVF_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (there && first + r < p_.height) {
        prefetch_result(x + int64_t{1} * (first + r) * x_row() + t * (kChannels / 2 - 4));
      }
    }
  }

  // y = scale · sums + bias (+ x) of the pixels that are this strip's, and of rows that the image has.
  MVF_DEVICE void store(const Sums& sums, int64_t at, int rows) const {
    MVF_UNROLL
    for (int r = 0; r < Step::kSums; ++r) {
      MVF_UNROLL
      for (int n = 0; n < Step::kUsed; n += kRun) {
        MVF_UNROLL
        for (int m = 0; m < 2; ++m) {
          const int row = kStride == 1 ? r : m;
          if (!has_[kStride == 1 ? m : 0] || row >= rows) continue;
          const int64_t to = at + int64_t{1} * row * y_row() + (kStride == 1 ? m * kOutputs : 0) + n * 8;
          uint32_t words[kRun] = {};
          if (kStride == 1 && kChannels == kOutputs && p_.residual) load_words(static_cast<const T*>(p_.x) + to, words);
          MVF_UNROLL
          for (int j = 0; j < kRun; ++j) {
            const Float4 affine = load_shared_at<Float4>(result_affine_ + (n + j) * 64);
            const float* s = sums[r][n + j] + 2 * m;
            Float2 v = {s[0] * affine.x + affine.z, s[1] * affine.y + affine.w};
            if (kStride == 1 && kChannels == kOutputs) {
              const Float2 x = unpack<T>(words[j]);
              v.x += x.x, v.y += x.y;
            }
            words[j] = pack<T>(v.x, v.y);
          }
          store_words(static_cast<T*>(p_.y) + to, words);
        }
      }
    }
  }

  static MVF_DEVICE void load_words(const T* at, uint32_t (&words)[kRun]) {
    if constexpr (kRun == 1) {
      words[0] = load_result(reinterpret_cast<const uint32_t*>(at));
    } else {
      const auto v = load_result(reinterpret_cast<const Words*>(at));
      MVF_UNROLL
      for (int i = 0; i < kRun; ++i) words[i] = v.word[i];
    }
  }
  static MVF_DEVICE void store_words(T* at, const uint32_t (&words)[kRun]) {
    if constexpr (kRun == 1) {
      store_global(reinterpret_cast<uint32_t*>(at), words[0]);
    } else {
      Words v;
      MVF_UNROLL
      for (int i = 0; i < kRun; ++i) v.word[i] = words[i];
      store_global(reinterpret_cast<Words*>(at), v);
    }
  }

  const Params& p_;
  Step step_;
  uint32_t result_affine_;  // of this lane, in shared memory
  bool has_[2];             // whether the first and the second pixel are this strip's
};

}  // namespace mobilevit_fast::cuda
