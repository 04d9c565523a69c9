// The threads of one emulated CUDA block as fibers of one system thread: they run one after the
// other and switch where they wait, so every run is the same run. Sanitizers are told: to
// ThreadSanitizer each fiber is a thread, synchronized with others by nothing but what it waited
// for, so that a missing barrier is seen as the race it is.
#pragma once

#include <atomic>
#include <cstdint>

namespace pymerge::emulated {

// What fibers and their scheduler tell each other. Atomic for ThreadSanitizer, to which they are
// threads, and relaxed, or it would take this for synchronization.
template <typename T>
class Shared {
 public:
  Shared(T value) : value_(value) {}
  operator T() const { return value_.load(std::memory_order_relaxed); }
  Shared& operator=(T value) {
    value_.store(value, std::memory_order_relaxed);
    return *this;
  }

 private:
  std::atomic<T> value_;
};

// How many of a group of threads have arrived, and how often all have.
struct Barrier {
  unsigned members = 0;
  Shared<unsigned> arrived = 0;
  Shared<unsigned> passed = 0;
  char meetings[2] = {};
};

// Calls run(argument, thread) for each thread below `threads`; all have ended when this returns.
void run_block(unsigned threads, void (*run)(void*, unsigned), void* argument);

// Returns when all members have arrived. For threads of a block that runs.
void arrive_and_wait(Barrier& barrier);

// The number of the thread that runs, in its block.
unsigned current_thread();

// Of the thread that runs: the barrier of its block, and that of its warp.
Barrier& block_barrier();
Barrier& warp_barrier();

// Puts `bits` in reach of the thread's warp and waits for all of it; [32] words, by lane, that stay
// valid until the thread exchanges the next but one time.
const std::uint64_t* exchange(std::uint64_t bits);

}  // namespace pymerge::emulated
