// The runtime by itself: pools, jobs in rounds, errors. Built and run by test_runtime.py; prints
// what went wrong and returns how much.
#include <atomic>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/job_queue.h"

namespace pymerge {
namespace {

int failures = 0;

void check(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

// Counts how often each tile of each round ran.
class CountingJob : public TileJob {
 public:
  CountingJob(std::int64_t tiles, int rounds)
      : rounds_(rounds), runs_(static_cast<std::size_t>(tiles)) {}
  std::int64_t tiles() const override { return static_cast<std::int64_t>(runs_.size()); }
  void run(std::int64_t tile, Scratch&) override { ++runs_[static_cast<std::size_t>(tile)]; }
  bool again() override {
    for (const auto& runs : runs_) whole_ = whole_ && runs == round_ + 1;
    return ++round_ < rounds_;
  }
  // Every tile ran once a round, and no round began before the one before it was whole.
  bool is_whole() const { return whole_ && round_ == rounds_; }

 private:
  const int rounds_;
  int round_ = 0;
  bool whole_ = true;
  std::vector<std::atomic<int>> runs_;
};

class FailingJob : public TileJob {
 public:
  explicit FailingJob(std::int64_t bad) : bad_(bad) {}
  std::int64_t tiles() const override { return 1000; }
  void run(std::int64_t tile, Scratch&) override {
    if (tile == bad_) throw std::runtime_error("tile " + std::to_string(tile));
  }

 private:
  const std::int64_t bad_;
};

// Two tiles in its second round, each of which waits for the other: it ends only if two workers run
// it.
class MeetingJob : public TileJob {
 public:
  std::int64_t tiles() const override { return 2; }
  void run(std::int64_t, Scratch&) override {
    if (round_ == 0) return;
    ++here_;
    while (here_ < 2) std::this_thread::yield();
  }
  bool again() override { return ++round_ == 1; }

 private:
  int round_ = 0;
  std::atomic<int> here_{0};
};

void test_every_tile_runs_once_a_round() {
  for (const int threads : {1, 2, 7}) {
    for (const std::int64_t tiles : {1, 2, 63, 1000}) {
      const auto job = std::make_shared<CountingJob>(tiles, 3);
      run_job(job, threads);
      check(job->is_whole(), "every tile runs once a round");
    }
  }
}

void test_many_small_jobs_in_a_row() {
  for (int i = 0; i < 500; ++i) {
    const auto job = std::make_shared<CountingJob>(2, 2);
    run_job(job, 3);
    check(job->is_whole(), "many small jobs in a row");
  }
}

void test_an_error_in_a_tile_reaches_the_caller() {
  for (const int threads : {1, 2, 7}) {
    for (const std::int64_t bad : {0, 500, 999}) {
      std::string message;
      try {
        run_job(std::make_shared<FailingJob>(bad), threads);
      } catch (const std::runtime_error& error) {
        message = error.what();
      }
      check(message == "tile " + std::to_string(bad), "an error in a tile reaches the caller");
    }
  }
}

void test_a_new_round_wakes_idle_workers() {
  for (int i = 0; i < 200; ++i) run_job(std::make_shared<MeetingJob>(), 2);
}

void test_jobs_share_one_pool() {
  constexpr int kJobs = 2000;
  JobQueue queue;
  std::atomic<int> done{0};
  std::vector<std::shared_ptr<CountingJob>> jobs;
  {
    Pool pool(4, {&queue});
    queue.attach(&pool);
    for (int i = 0; i < kJobs; ++i) {
      jobs.push_back(std::make_shared<CountingJob>(1 + i % 5, 1 + i % 3));
      queue.submit(jobs.back(), [&done] { ++done; });
    }
    while (done < kJobs) std::this_thread::yield();
    check(pool.busy_seconds(0) > 0, "a pool knows that it was busy, and for whom");
    check(pool.cpu_seconds() > 0, "a pool knows what it computed");
  }
  for (const auto& job : jobs) check(job->is_whole(), "jobs share one pool");
}

void test_a_pool_keeps_its_first_error() {
  JobQueue queue;
  Pool pool(1, {&queue});
  queue.attach(&pool);
  queue.submit(std::make_shared<FailingJob>(3), [] {});
  queue.submit(std::make_shared<FailingJob>(4), [] {});
  while (!pool.error()) std::this_thread::yield();
  pool.fail(std::make_exception_ptr(std::runtime_error("late")));
  pool.stop();
  std::string message;
  try {
    std::rethrow_exception(pool.error());
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  check(message == "tile 3", "a pool keeps its first error");
}

void test_scratch_grows_and_is_aligned() {
  Scratch scratch;
  for (const std::size_t size : {1, 4096, 100'000, 5}) {
    auto* const memory = static_cast<char*>(scratch.take(size));
    check(reinterpret_cast<std::uintptr_t>(memory) % kPage == 0, "scratch is aligned");
    memory[size - 1] = 1;
  }
}

}  // namespace
}  // namespace pymerge

int main() {
  using namespace pymerge;
  test_every_tile_runs_once_a_round();
  test_many_small_jobs_in_a_row();
  test_an_error_in_a_tile_reaches_the_caller();
  test_a_new_round_wakes_idle_workers();
  test_jobs_share_one_pool();
  test_a_pool_keeps_its_first_error();
  test_scratch_grows_and_is_aligned();
  return failures;
}
