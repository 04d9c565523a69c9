// The keys that a scan found inside a bracket, by the tile in which they lie, and the choice of one
// of them by rank. Memory comes from a pool, since the next select gathers as many.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/chunk_pool.h"

namespace pymerge {

template <typename Key>
class Gathered {
 public:
  Gathered() = default;
  ~Gathered() { clear(); }
  Gathered(const Gathered&) = delete;
  Gathered& operator=(const Gathered&) = delete;

  // Safe from any thread.
  void add(std::int64_t tile, const Key* keys, std::int64_t count) {
    while (count > 0) {
      const Part part = reserve(tile, count);
      std::copy(keys, keys + part.count, part.begin);
      keys += part.count;
      count -= part.count;
    }
  }

  void clear() {
    for (AlignedBuffer& chunk : chunks_) ChunkPool::shared().give(std::move(chunk));
    chunks_.clear();
    parts_.clear();
    used_ = 0;
  }

  std::int64_t size() const {
    std::int64_t total = 0;
    for (const Part& part : parts_) total += part.count;
    return total;
  }

  // Adds to counts[tile] how often `key` is there.
  void count(Key key, std::vector<std::int64_t>& counts) const {
    for (const Part& part : parts_) {
      counts[static_cast<std::size_t>(part.tile)] += std::count(part.begin, part.end(), key);
    }
  }

  // The key of a rank (1 is the largest); `rank` becomes its rank among its equals. All keys lie in
  // [low, high]. Counting passes over buckets, each over the keys of the last one's bucket: to
  // select among all of them took as long as the scan, and one bucket may be a key that is there
  // often.
  Key choose(std::uint64_t low, std::uint64_t high, std::int64_t& rank) const {
    constexpr int kBits = 12;
    std::vector<std::uint32_t> counts(std::size_t{1} << kBits);
    std::vector<Key> keys;
    for (bool is_first = true;; is_first = false) {
      int shift = 0;
      while (((high - low) >> shift) >> kBits != 0) ++shift;
      const auto bucket_of = [&](Key key) {
        return static_cast<std::size_t>((key - low) >> shift);
      };
      const auto for_all = [&](const auto& use) {
        if (!is_first) std::for_each(keys.begin(), keys.end(), use);
        for (std::size_t i = 0; is_first && i < parts_.size(); ++i) {
          std::for_each(parts_[i].begin, parts_[i].end(), use);
        }
      };
      std::fill(counts.begin(), counts.end(), 0);
      for_all([&](Key key) { ++counts[bucket_of(key)]; });
      std::size_t bucket = counts.size() - 1;
      while (counts[bucket] < rank) rank -= counts[bucket--];
      const std::uint64_t first = low + (std::uint64_t{bucket} << shift);
      if (shift == 0) return static_cast<Key>(first);
      std::vector<Key> chosen;
      chosen.reserve(counts[bucket]);
      for_all([&](Key key) {
        if (bucket_of(key) == bucket) chosen.push_back(key);
      });
      keys.swap(chosen);
      low = first;
      high = std::min(high, first + ((std::uint64_t{1} << shift) - 1));
    }
  }

 private:
  struct Part {
    std::int64_t tile;
    Key* begin;
    std::int64_t count;
    Key* end() const { return begin + count; }
  };

  // Room for up to `count` keys.
  Part reserve(std::int64_t tile, std::int64_t count) {
    const std::lock_guard lock(mutex_);
    if (chunks_.empty() || used_ == ChunkPool::kChunk) {
      chunks_.push_back(ChunkPool::shared().take());
      used_ = 0;
    }
    const auto left = static_cast<std::int64_t>((ChunkPool::kChunk - used_) / sizeof(Key));
    const Part part{tile, reinterpret_cast<Key*>(chunks_.back().data() + used_),
                    std::min(count, left)};
    used_ += static_cast<std::size_t>(part.count) * sizeof(Key);
    parts_.push_back(part);
    return part;
  }

  std::mutex mutex_;
  std::vector<Part> parts_;
  std::vector<AlignedBuffer> chunks_;
  std::size_t used_ = 0;  // bytes of the last chunk
};

}  // namespace pymerge
