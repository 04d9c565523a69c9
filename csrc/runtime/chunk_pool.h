// Memory that many short-lived jobs use in turn. Handing it back to the system in between would
// have every page cleared again for the next job: a third of a select's time.
#pragma once

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/aligned_buffer.h"

namespace pymerge {

class ChunkPool {
 public:
  static constexpr std::size_t kChunk = 256 << 10;  // bytes

  static ChunkPool& shared() {
    static ChunkPool pool;
    return pool;
  }

  AlignedBuffer take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        AlignedBuffer chunk = std::move(free_.back());
        free_.pop_back();
        return chunk;
      }
    }
    return AlignedBuffer(kChunk);
  }
  void give(AlignedBuffer chunk) {
    const std::lock_guard lock(mutex_);
    if (free_.size() < kKept) free_.push_back(std::move(chunk));
  }

 private:
  static constexpr std::size_t kKept = 64;  // 16 MiB
  std::mutex mutex_;
  std::vector<AlignedBuffer> free_;
};

}  // namespace pymerge
