// Fibers: stacks that one thread of the host switches between. x86-64 and 64-bit ARM, without system calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace mobilevit_fast::emulator {

extern "C" void mvf_switch_stack(void** saved, void* next);

// Saves the registers that a function must keep, and the stack pointer; continues where `next` was saved.
#if defined(__x86_64__)
__asm__(
    ".text\n"
    ".weak mvf_switch_stack\n"
    ".type mvf_switch_stack, @function\n"
    "mvf_switch_stack:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size mvf_switch_stack, .-mvf_switch_stack\n");
constexpr size_t kSavedWords = 6, kReturnWord = 6, kFrameWords = 8;
#elif defined(__aarch64__)
__asm__(
    ".text\n"
    ".weak mvf_switch_stack\n"
    ".type mvf_switch_stack, %function\n"
    "mvf_switch_stack:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n"
    ".size mvf_switch_stack, .-mvf_switch_stack\n");
constexpr size_t kSavedWords = 20, kReturnWord = 11, kFrameWords = 20;
#else
#error "The emulator switches stacks on x86-64 and 64-bit ARM."
#endif

// A function on a stack of its own. `resume` runs it until it calls `pause` or ends; an exception of its ends it and
// comes out of `resume`. One that is dropped while it pauses runs no destructors.
class Fiber {
 public:
  static constexpr size_t kStackBytes = 256 << 10;

  explicit Fiber(std::function<void()> body) : body_(std::move(body)), stack_(take_stack()) {
    void** top = reinterpret_cast<void**>(stack_.get() + kStackBytes) - kFrameWords;
    for (size_t i = 0; i < kFrameWords; ++i) top[i] = nullptr;
    top[kReturnWord] = reinterpret_cast<void*>(&Fiber::enter);
    own_ = top;
  }
  ~Fiber() {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(stack_.get(), kStackBytes);
#endif
    pool().push_back(std::move(stack_));
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  bool ended() const { return ended_; }

  void resume() {
    Fiber* const before = current();
    current() = this;
    leave(&host_fake_, stack_.get(), kStackBytes);
    mvf_switch_stack(&host_, own_);
    arrive(host_fake_, nullptr, nullptr);
    current() = before;
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  static void pause() {
    Fiber& self = *current();
    leave(&self.own_fake_, self.host_bottom_, self.host_bytes_);
    mvf_switch_stack(&self.own_, self.host_);
    arrive(self.own_fake_, &self.host_bottom_, &self.host_bytes_);
  }

 private:
  using Stack = std::unique_ptr<char[]>;

  static Fiber*& current() {
    thread_local Fiber* fiber = nullptr;
    return fiber;
  }
  static std::vector<Stack>& pool() {
    thread_local std::vector<Stack> stacks;
    return stacks;
  }
  static Stack take_stack() {
    if (pool().empty()) return Stack(new char[kStackBytes]);
    Stack stack = std::move(pool().back());
    pool().pop_back();
    return stack;
  }

  static void enter() {
    Fiber& self = *current();
    arrive(nullptr, &self.host_bottom_, &self.host_bytes_);
    try {
      self.body_();
    } catch (...) {
      self.error_ = std::current_exception();
    }
    self.ended_ = true;
    leave(nullptr, self.host_bottom_, self.host_bytes_);
    mvf_switch_stack(&self.own_, self.host_);
    std::abort();  // nobody resumes a fiber that ended
  }

  // What AddressSanitizer has to know of a change of stacks.
  static void leave([[maybe_unused]] void** fake, [[maybe_unused]] const void* bottom, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake, bottom, bytes);
#endif
  }
  static void arrive([[maybe_unused]] void* fake, [[maybe_unused]] const void** bottom,
                     [[maybe_unused]] size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, bottom, bytes);
#endif
  }

  std::function<void()> body_;
  Stack stack_;
  void *own_ = nullptr, *host_ = nullptr;
  void *own_fake_ = nullptr, *host_fake_ = nullptr;
  const void* host_bottom_ = nullptr;
  size_t host_bytes_ = 0;
  bool ended_ = false;
  std::exception_ptr error_;
};

}  // namespace mobilevit_fast::emulator
