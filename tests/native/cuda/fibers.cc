// glibc's checked longjmp takes a switch to another stack for an error.
#undef _FORTIFY_SOURCE

#include "fibers.h"

#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

// As GCC says it.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace pymerge::emulated {
namespace {

#if defined(__SANITIZE_ADDRESS__)
// It goes over a whole stack at every switch.
constexpr std::size_t kStack = 48 << 10;
#else
constexpr std::size_t kStack = 256 << 10;
#endif
constexpr unsigned kWarp = 32;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "emulated CUDA: %s\n", what);
  std::abort();
}

// A stack that runs, or waits to run on.
class Context {
 public:
  // Leaves this one for `other`, until somebody leaves for this one.
  void leave_for(Context& other) {
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(other.tsan, __tsan_switch_to_fiber_no_sync);
    swapcontext(&place, &other.place);
#elif defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fake_stack, other.bottom, other.size);
    swapcontext(&place, &other.place);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    // As swapcontext, without its two system calls.
    if (_setjmp(jump) == 0) other.started ? _longjmp(other.jump, 1) : other.start();
#endif
  }

  void start() {
    started = true;
    setcontext(&place);
  }

  ucontext_t place{};
  jmp_buf jump{};
  bool started = false;
  const void* bottom = nullptr;
  std::size_t size = 0;
  void* fake_stack = nullptr;
  void* tsan = nullptr;
};

struct Fiber : Context {
  std::unique_ptr<std::byte[]> stack;
  unsigned thread = 0;
  Shared<bool> done = true;
  Shared<const Barrier*> waits = nullptr;  // for this to have passed more than `since` times
  Shared<unsigned> since = 0;
  unsigned exchanges = 0;

  bool can_run() const {
    const Barrier* const barrier = waits;
    return !done && (barrier == nullptr || barrier->passed != since);
  }
};

struct Warp {
  Barrier barrier;
  // Of two exchanges in a row, so that nobody need wait until all have read.
  std::uint64_t words[2][kWarp];
};

// Threads that launch at the same time have a block each.
struct Block {
  Context scheduler;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<std::unique_ptr<Warp>> warps;
  Barrier barrier;
  void (*run)(void*, unsigned) = nullptr;
  void* argument = nullptr;
  Shared<Fiber*> current = nullptr;
};
thread_local Block block;
// Where a block's threads meet who launched it, at its start and its end.
constexpr char kStart = 0;
constexpr char kEnd = 0;

void acquire([[maybe_unused]] const void* at) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(const_cast<void*>(at));
#endif
}

void release([[maybe_unused]] const void* at) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(const_cast<void*>(at));
#endif
}

// A fiber's life: one thread of a block after the other.
void live() {
#if defined(__SANITIZE_ADDRESS__)
  Context& caller = block.scheduler;
  __sanitizer_finish_switch_fiber(nullptr, &caller.bottom, &caller.size);
#endif
  for (;;) {
    Fiber& fiber = *block.current;
    acquire(&kStart);
    block.run(block.argument, fiber.thread);
    release(&kEnd);
    fiber.done = true;
    fiber.leave_for(block.scheduler);
  }
}

std::unique_ptr<Fiber> make_fiber(unsigned thread) {
  auto fiber = std::make_unique<Fiber>();
  fiber->stack = std::make_unique_for_overwrite<std::byte[]>(kStack);
  fiber->thread = thread;
  fiber->bottom = fiber->stack.get();
  fiber->size = kStack;
#if defined(__SANITIZE_THREAD__)
  fiber->tsan = __tsan_create_fiber(0);
#endif
  getcontext(&fiber->place);
  fiber->place.uc_stack.ss_sp = fiber->stack.get();
  fiber->place.uc_stack.ss_size = kStack;
  makecontext(&fiber->place, &live, 0);
  return fiber;
}

void set_up(unsigned threads) {
  if (threads == 0 || threads > 1024 || threads % kWarp != 0) fail("a block is not of whole warps");
  while (block.fibers.size() < threads) {
    block.fibers.push_back(make_fiber(static_cast<unsigned>(block.fibers.size())));
  }
  block.barrier.members = threads;
  while (block.warps.size() < threads / kWarp) {
    block.warps.push_back(std::make_unique<Warp>());
    block.warps.back()->barrier.members = kWarp;
  }
  for (unsigned i = 0; i < threads; ++i) {
    block.fibers[i]->done = false;
    block.fibers[i]->waits = nullptr;
    block.fibers[i]->exchanges = 0;
  }
}

}  // namespace

void run_block(unsigned threads, void (*run)(void*, unsigned), void* argument) {
  set_up(threads);
  block.run = run;
  block.argument = argument;
#if defined(__SANITIZE_THREAD__)
  // Fibers have no need to see this, once it is there, again.
  if (block.scheduler.tsan == nullptr) block.scheduler.tsan = __tsan_get_current_fiber();
#endif
  if (!block.scheduler.started) block.scheduler.started = true;
  release(&kStart);
  for (unsigned left = threads; left > 0;) {
    bool stuck = true;
    for (unsigned i = 0; i < threads; ++i) {
      Fiber& fiber = *block.fibers[i];
      if (!fiber.can_run()) continue;
      stuck = false;
      fiber.waits = nullptr;
      block.current = &fiber;
      block.scheduler.leave_for(fiber);
      if (fiber.done) --left;
    }
    if (stuck) fail("threads wait at a barrier that others do not reach");
  }
  acquire(&kEnd);
}

void arrive_and_wait(Barrier& barrier) {
  Fiber& fiber = *block.current;
  const unsigned pass = barrier.passed;
  // Whoever is ahead arrives for the next pass at another address: those behind must not see it.
  const void* const meeting = &barrier.meetings[pass % 2];
  release(meeting);
  barrier.arrived = barrier.arrived + 1;
  if (barrier.arrived == barrier.members) {
    barrier.arrived = 0;
    barrier.passed = pass + 1;
  } else {
    fiber.since = pass;
    fiber.waits = &barrier;
    fiber.leave_for(block.scheduler);
  }
  acquire(meeting);
}

unsigned current_thread() { return static_cast<Fiber*>(block.current)->thread; }

Barrier& block_barrier() { return block.barrier; }

Barrier& warp_barrier() {
  return block.warps[static_cast<Fiber*>(block.current)->thread / kWarp]->barrier;
}

const std::uint64_t* exchange(std::uint64_t bits) {
  Fiber& fiber = *block.current;
  Warp& warp = *block.warps[fiber.thread / kWarp];
  std::uint64_t* const words = warp.words[fiber.exchanges++ % 2];
  words[fiber.thread % kWarp] = bits;
  arrive_and_wait(warp.barrier);
  return words;
}

}  // namespace pymerge::emulated
