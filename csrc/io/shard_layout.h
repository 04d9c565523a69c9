// Where the tensors of an output file lie, which of its bytes are there already, and which blocks
// and segments a range of it meets.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace pymerge {

// Bytes of a file, by absolute offset.
struct Segment {
  std::int64_t offset;
  std::int64_t nbytes;
  std::int64_t end() const { return offset + nbytes; }
};

class ShardLayout {
 public:
  // The segments are gapless from 0 to the file's end.
  ShardLayout(std::vector<Segment> segments, std::int64_t block)
      : segments_(std::move(segments)),
        block_(block),
        size_(segments_.empty() ? 0 : segments_.back().end()) {}

  std::int64_t size() const { return size_; }
  std::int64_t blocks() const { return (size_ + block_ - 1) / block_; }
  std::int64_t block_of(std::int64_t offset) const { return offset / block_; }
  const std::vector<Segment>& segments() const { return segments_; }
  const Segment& segment(std::size_t number) const { return segments_[number]; }

  Segment block_range(std::int64_t number) const {
    const std::int64_t begin = number * block_;
    return {begin, std::min(block_, size_ - begin)};
  }

  // Bytes that need not be written: whole pages or up to the file's end, in order, apart.
  const std::vector<Segment>& there() const { return there_; }
  void set_there(std::vector<Segment> ranges) { there_ = std::move(ranges); }

  // The parts of a range that are to be written.
  std::vector<Segment> missing_parts(const Segment& range) const {
    std::vector<Segment> parts;
    std::int64_t at = range.offset;
    auto next = std::upper_bound(there_.begin(), there_.end(), at, ends_after);
    for (; next != there_.end() && next->offset < range.end(); ++next) {
      if (next->offset > at) parts.push_back({at, next->offset - at});
      at = next->end();
    }
    if (at < range.end()) parts.push_back({at, range.end() - at});
    return parts;
  }

  // Calls visit(segment number, begin, end), absolute, for what a range has of each segment.
  template <typename Visit>
  void for_each_segment(const Segment& range, Visit visit) const {
    auto at = std::upper_bound(segments_.begin(), segments_.end(), range.offset, ends_after);
    for (; at != segments_.end() && at->offset < range.end(); ++at) {
      const std::int64_t begin = std::max(range.offset, at->offset);
      const std::int64_t end = std::min(range.end(), at->end());
      if (begin < end) visit(static_cast<std::size_t>(at - segments_.begin()), begin, end);
    }
  }

 private:
  static bool ends_after(std::int64_t value, const Segment& segment) {
    return value < segment.end();
  }

  std::vector<Segment> segments_;
  std::int64_t block_;
  std::int64_t size_;
  std::vector<Segment> there_;
};

}  // namespace pymerge
