#include "runtime/pool.h"

#include <time.h>

#include <system_error>
#include <utility>

#include "core/error.h"

namespace pymerge {
namespace {

std::int64_t now_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

Pool::Pool(int threads, std::vector<WorkSource*> sources)
    : sources_(std::move(sources)), busy_ns_(sources_.size()) {
  threads_.reserve(static_cast<std::size_t>(threads));
  try {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    stop();
    throw Error(ErrorCode::kResource, "the system cannot start " + std::to_string(threads) +
                                          " threads; give a smaller number with --threads");
  }
}

Pool::~Pool() { stop(); }

void Pool::notify() {
  {
    const std::lock_guard lock(mutex_);
    ++generation_;
  }
  wake_.notify_all();
}

void Pool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void Pool::fail(std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
    stopping_ = true;
  }
  wake_.notify_all();
}

std::exception_ptr Pool::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

void Pool::work() {
  Scratch scratch;
  for (;;) {
    std::uint64_t seen;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      seen = generation_;
    }
    const std::int64_t wall = now_ns(CLOCK_MONOTONIC);
    const std::int64_t cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
    std::size_t source = 0;
    try {
      while (source < sources_.size() && !sources_[source]->run_one(scratch)) ++source;
    } catch (...) {
      fail(std::current_exception());
      return;
    }
    if (source < sources_.size()) {
      busy_ns_[source] += now_ns(CLOCK_MONOTONIC) - wall;
      cpu_ns_ += now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
      continue;
    }
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
  }
}

}  // namespace pymerge
