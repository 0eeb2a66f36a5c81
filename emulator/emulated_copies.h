// Copies that arrive by themselves, of device_sm90.h: bulk copies, boxes of images, stores into other blocks.
#pragma once

#include "cuda/sm90/tensor_map.h"
#include "emulated_shared.h"
#include "sm90_loops.h"

namespace mobilevit_fast::cuda {

inline void expect_bulk(int bytes, const void* global, const emulated::Place& place) {
  if (bytes <= 0 || bytes % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0) {
    throw emulated::Error("bulk copy: expected bytes and addresses that are multiples of 16, got " +
                          std::to_string(bytes) + " bytes at " + place.text());
  }
}

// The barrier of a copy, which counts its bytes, in the block where these arrive.
inline emulated::Barrier& barrier_of_copy(emulated::Sm90Block& target, uint32_t barrier, const emulated::Place& place) {
  emulated::Barrier& found = target.barrier_at(barrier, place);
  target.expect_init_fence(found, place);
  return found;
}

// `write` fills `bytes` of a block's shared memory when they arrive; until then it needs the one of `source` too.
template <class Write>
void fly_to_shared(emulated::Sm90Block& source, emulated::Sm90Block& target, uint32_t to, size_t bytes,
                   size_t alignment, uint32_t barrier, const emulated::Place& place, const Write& write) {
  const size_t at = target.window.offset(to, bytes, alignment, place);
  emulated::Barrier& found = barrier_of_copy(target, barrier, place);
  target.expect_no_barrier(at, bytes, place);
  target.window.begin_landing(at, bytes, place);
  target.cluster.fly(place, source, target, [&target, &found, at, bytes, write] {
    target.window.end_landing(at, bytes);
    write(target.window.data() + at);
    target.complete_bytes(found, static_cast<int64_t>(bytes));
  });
}

MVF_OUT_OF_LINE inline void copy_bulk(uint32_t to, const void* from, int bytes, uint32_t barrier, MVF_PLACE) {
  expect_bulk(bytes, from, MVF_HERE);
  emulated::Sm90Block& block = sm90_block();
  const size_t size = static_cast<size_t>(bytes);
  block.touch_global(from, size, MVF_HERE).read += size;
  fly_to_shared(block, block, to, size, 16, barrier, MVF_HERE,
                [from, size](char* data) { std::memcpy(data, from, size); });
}
MVF_OUT_OF_LINE inline void copy_bulk_remote(uint32_t to, uint32_t from, int bytes, uint32_t barrier, MVF_PLACE) {
  expect_bulk(bytes, nullptr, MVF_HERE);
  emulated::Sm90Block& block = sm90_block();
  const size_t size = static_cast<size_t>(bytes), source = block.window.offset(from, size, 16, MVF_HERE);
  block.expect_fenced(source, size, "copy_bulk_remote", MVF_HERE);
  block.window.begin_read(source, size);
  fly_to_shared(block, block.cluster.block_of(to, MVF_HERE), to, size, 16, barrier, MVF_HERE,
                [&block, source, size](char* data) {
                  block.window.end_read(source, size);
                  std::memcpy(data, block.window.data() + source, size);
                });
}
template <class T>
void store_async(uint32_t address, T value, uint32_t barrier, MVF_PLACE) {
  emulated::Sm90Block& target = sm90_block().cluster.block_of(address, MVF_HERE);
  const size_t at = target.window.offset(address, sizeof(T), sizeof(T), MVF_HERE);
  ++sm90_block().device.counts.instructions;
  fly_to_shared(target, target, address, sizeof(T), sizeof(T), barrier, MVF_HERE, [&target, at, value](char* data) {
    std::memcpy(data, &value, sizeof(T));
    target.stored_by_others(at, sizeof(T));
  });
}

// --- Boxes of images -------------------------------------------------------------------------------------------------

// A box whose copy was asked for.
struct FlyingBox {
  ImageBox images;
  int channel, column, row, image;

  size_t bytes() const {
    return static_cast<size_t>(images.box_images) * images.box_height * images.box_width * images.box_channels * 2;
  }
  // Gives every pixel of the box: its channels in global memory, how many of them lie inside, and, for each 16 bytes
  // of its place in the box, where swizzling puts them, counted from the place of the box at `to`.
  template <class Visit>
  void each_pixel(uint32_t to, const Visit& visit) const {
    const uint32_t width = images.swizzle == 0 ? 16 : 256u >> images.swizzle;
    const auto inside = [](int at, int size) { return at >= 0 && at < size; };
    uint32_t offset = 0;
    for (int n = 0; n < images.box_images; ++n) {
      for (int h = 0; h < images.box_height; ++h) {
        for (int w = 0; w < images.box_width; ++w) {
          const bool there =
              inside(image + n, images.images) && inside(row + h, images.height) && inside(column + w, images.width);
          const int64_t pixel =
              (static_cast<int64_t>(image + n) * images.height + (row + h)) * images.width + (column + w);
          for (int c = 0; c < images.box_channels; c += 8, offset += 16) {
            const bool in = there && inside(channel + c, images.channels);
            const uint16_t* numbers = static_cast<const uint16_t*>(images.data) + pixel * images.channels + channel + c;
            const int count = in ? std::min(8, images.channels - channel - c) : 0;
            visit(in ? numbers : nullptr, count, emulated::Operand::swizzled(to + offset, width) - to);
          }
        }
      }
    }
  }
};
MVF_OUT_OF_LINE inline FlyingBox box_of(const TensorMap* map, uint32_t shared, int channel, int column, int row,
                                        int image, emulated::Array*& array, const emulated::Place& place) {
  const ImageBox& images = map->images;
  const int inner = images.box_channels * 2, span = images.swizzle == 0 ? 256 : 256 >> images.swizzle;
  if (images.swizzle != 0 && inner != span) {
    throw emulated::Error("tensor copy: expected pixels as wide as their swizzle, " + std::to_string(span) +
                          " bytes, got " + std::to_string(inner) + " at " + place.text());
  }
  if (channel % 8 != 0) throw emulated::Error("tensor copy: expected channels from a multiple of 8 at " + place.text());
  if (shared % 128 != 0) throw emulated::Error("tensor copy: expected shared memory at 128 bytes at " + place.text());
  const size_t bytes = static_cast<size_t>(images.images) * images.height * images.width * images.channels * 2;
  array = &block().touch_global(images.data, bytes, place);
  return {images, channel, column, row, image};
}

MVF_OUT_OF_LINE inline void copy_tile(uint32_t to, const TensorMap* map, int channel, int column, int row, int image,
                                      uint32_t barrier, MVF_PLACE) {
  emulated::Array* array = nullptr;
  const FlyingBox box = box_of(map, to, channel, column, row, image, array, MVF_HERE);
  fly_to_shared(sm90_block(), sm90_block(), to, box.bytes(), 128, barrier, MVF_HERE, [box, to, array](char* data) {
    box.each_pixel(to, [&](const uint16_t* numbers, int count, uint32_t at) {
      std::memset(data + at, 0, 16);
      if (count > 0) std::memcpy(data + at, numbers, static_cast<size_t>(count) * 2);
      array->read += static_cast<size_t>(count) * 2;
    });
  });
}
inline void prefetch_map(const TensorMap*) {}

// `write` reads `bytes` of shared memory when the store goes through, for the thread's open group.
template <class Write>
void fly_from_shared(uint32_t from, size_t bytes, const char* what, const emulated::Place& place, const Write& write) {
  emulated::Sm90Block& block = sm90_block();
  const size_t at = block.window.offset(from, bytes, 16, place);
  block.expect_fenced(at, bytes, what, place);
  block.window.begin_read(at, bytes);
  const std::shared_ptr<emulated::StoreGroup> group = block.more().open_stores;
  ++group->stores;
  block.cluster.fly(place, block, block, [&block, at, bytes, group, write] {
    block.window.end_read(at, bytes);
    write(block.window.data() + at);
    if (--group->stores == 0 && group->waiter != nullptr) block.wake(*std::exchange(group->waiter, nullptr));
  });
}
MVF_OUT_OF_LINE inline void store_tile(const TensorMap* map, uint32_t from, int channel, int column, int row, int image,
                                       MVF_PLACE) {
  emulated::Array* array = nullptr;
  const FlyingBox box = box_of(map, from, channel, column, row, image, array, MVF_HERE);
  fly_from_shared(from, box.bytes(), "store_tile", MVF_HERE, [box, from, array](const char* data) {
    box.each_pixel(from, [&](const uint16_t* numbers, int count, uint32_t at) {
      if (count > 0) std::memcpy(const_cast<uint16_t*>(numbers), data + at, static_cast<size_t>(count) * 2);
      array->written += static_cast<size_t>(count) * 2;
    });
  });
}
MVF_OUT_OF_LINE inline void store_bulk(void* to, uint32_t from, int bytes, MVF_PLACE) {
  expect_bulk(bytes, to, MVF_HERE);
  const size_t size = static_cast<size_t>(bytes);
  block().touch_global(to, size, MVF_HERE).written += size;
  fly_from_shared(from, size, "store_bulk", MVF_HERE, [to, size](const char* data) { std::memcpy(to, data, size); });
}
inline void store_bulk_commit() {
  emulated::Sm90Thread& more = sm90_block().more();
  more.stores.push_back(std::exchange(more.open_stores, std::make_shared<emulated::StoreGroup>()));
}
template <int kLeft>
void store_bulk_wait(MVF_PLACE) {
  emulated::Sm90Block& block = sm90_block();
  auto& groups = block.more().stores;
  for (; groups.size() > kLeft; groups.pop_front()) {
    emulated::StoreGroup& group = *groups.front();
    if (group.stores == 0) continue;
    group.waiter = &block.self();
    block.wait("store_bulk_wait", MVF_HERE);
  }
}

}  // namespace mobilevit_fast::cuda
