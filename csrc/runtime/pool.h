// Worker threads that draw from sources of work in order of priority. No barriers: a worker takes
// the next unit, whatever tensor it belongs to.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/aligned_buffer.h"

namespace pymerge {

class WorkSource {
 public:
  virtual ~WorkSource() = default;
  // Runs one unit of work if there is one now; returns whether it did. May throw: the pool then
  // stops and keeps the error.
  virtual bool run_one(Scratch& scratch) = 0;
};

class Pool {
 public:
  // Sources are asked in the given order; they must outlive the pool.
  Pool(int threads, std::vector<WorkSource*> sources);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Tells idle workers that a source may have work.
  void notify();
  // Ends the workers after the unit each is at. Idempotent.
  void stop();
  // Keeps the first error and stops taking work; safe from any thread.
  void fail(std::exception_ptr error);
  // The first error, if any.
  std::exception_ptr error() const;

  // Seconds, summed over workers: with work of one source, and on a processor while at any work.
  double busy_seconds(std::size_t source) const {
    return static_cast<double>(busy_ns_[source]) * 1e-9;
  }
  double cpu_seconds() const { return static_cast<double>(cpu_ns_) * 1e-9; }

 private:
  void work();

  std::vector<WorkSource*> sources_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::uint64_t generation_ = 0;
  bool stopping_ = false;
  std::exception_ptr error_;
  std::vector<std::atomic<std::int64_t>> busy_ns_;  // per source
  std::atomic<std::int64_t> cpu_ns_{0};
  std::vector<std::thread> threads_;
};

}  // namespace pymerge
