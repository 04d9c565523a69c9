#include "runtime/job_queue.h"

#include <algorithm>
#include <condition_variable>
#include <utility>

namespace pymerge {

void JobQueue::push(std::shared_ptr<Entry> entry) {
  entry->tiles = entry->job->tiles();
  entry->next = 0;
  entry->left = entry->tiles;
  {
    const std::lock_guard lock(mutex_);
    entries_.push_back(std::move(entry));
  }
  pool_->notify();
}

void JobQueue::submit(std::shared_ptr<TileJob> job, Done done) {
  auto entry = std::make_shared<Entry>();
  entry->job = std::move(job);
  entry->done = std::move(done);
  push(std::move(entry));
}

bool JobQueue::run_one(Scratch& scratch) {
  std::shared_ptr<Entry> entry;
  std::int64_t tile;
  {
    const std::lock_guard lock(mutex_);
    if (entries_.empty()) return false;
    entry = entries_.front();
    tile = entry->next++;
    if (entry->next == entry->tiles) entries_.pop_front();
  }
  entry->job->run(tile, scratch);
  if (--entry->left == 0) {
    if (entry->job->again()) {
      push(entry);
      return true;
    }
    entry->done();
  }
  return true;
}

void run_job(const std::shared_ptr<TileJob>& job, int threads) {
  if (threads <= 1 || job->tiles() == 1) {
    Scratch scratch;
    do {
      const std::int64_t tiles = job->tiles();
      for (std::int64_t tile = 0; tile < tiles; ++tile) job->run(tile, scratch);
    } while (job->again());
    return;
  }
  JobQueue queue;
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  const auto finish = [&] {
    const std::lock_guard lock(mutex);
    done = true;
    changed.notify_all();
  };
  // An error must wake the waiting caller too: this source turns it into the end of the job.
  struct Watched : WorkSource {
    JobQueue& queue;
    const std::function<void()> finish;
    Watched(JobQueue& q, std::function<void()> f) : queue(q), finish(std::move(f)) {}
    bool run_one(Scratch& scratch) override {
      try {
        return queue.run_one(scratch);
      } catch (...) {
        finish();
        throw;
      }
    }
  } watched(queue, finish);

  const auto useful = std::min<std::int64_t>(threads, job->tiles());
  Pool pool(static_cast<int>(useful), {&watched});
  queue.attach(&pool);
  queue.submit(job, finish);
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done; });
  }
  pool.stop();
  if (pool.error()) std::rethrow_exception(pool.error());
}

}  // namespace pymerge
