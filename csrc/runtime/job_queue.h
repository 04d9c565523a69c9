// Jobs cut into tiles. Workers take tiles of the oldest job first; a job's tiles run in any order
// on any thread, and its last one finishes it.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "runtime/pool.h"

namespace pymerge {

class TileJob {
 public:
  virtual ~TileJob() = default;
  virtual std::int64_t tiles() const = 0;  // at least 1
  virtual void run(std::int64_t tile, Scratch& scratch) = 0;
  // Called once, after every tile is done. Returns true if the job wants another round of tiles()
  // (a narrower pass over the data).
  virtual bool again() { return false; }
};

class JobQueue : public WorkSource {
 public:
  // `done` is called on the thread that finished the job.
  using Done = std::function<void()>;
  // The pool that runs the tiles; must be set before the first job.
  void attach(Pool* pool) { pool_ = pool; }
  void submit(std::shared_ptr<TileJob> job, Done done);
  bool run_one(Scratch& scratch) override;

 private:
  struct Entry {
    std::shared_ptr<TileJob> job;
    Done done;
    std::int64_t tiles;
    std::int64_t next = 0;  // guarded by the queue's mutex
    std::atomic<std::int64_t> left;
  };
  void push(std::shared_ptr<Entry> entry);

  Pool* pool_ = nullptr;
  std::mutex mutex_;
  std::deque<std::shared_ptr<Entry>> entries_;
};

// Runs one job on `threads` threads (the caller's among them if it is 1) and waits for it.
void run_job(const std::shared_ptr<TileJob>& job, int threads);

}  // namespace pymerge
