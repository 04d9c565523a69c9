// Rows cut into segments: what is ranked together, and what a thread remembers of it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/operand.h"

namespace pymerge {

// Elements of a segment at most: rows are cut into such, from each row's start.
inline constexpr std::int64_t kSegment = 65536;

namespace {

// The segment that holds element `at` of a tensor of `count` elements.
inline Range segment_of(std::int64_t at, std::int64_t row, std::int64_t count) {
  const std::int64_t start = at / row * row;
  const std::int64_t begin = start + (at - start) / kSegment * kSegment;
  return {begin, std::min({begin + kSegment, start + row, count}) - begin};
}

// The least whole segments that hold all of `range`, which is not empty.
inline Range whole_segments(Range range, std::int64_t row, std::int64_t count) {
  const std::int64_t begin = segment_of(range.begin, row, count).begin;
  const Range last = segment_of(range.begin + range.count - 1, row, count);
  return {begin, last.begin + last.count - begin};
}

}  // namespace

// The thresholds that a thread has at hand for one source: those of elements [begin, end), whole
// segments of rows.
struct RankedRun {
  std::int64_t begin;
  std::int64_t end;
  alignas(64) std::uint16_t thresholds[kSegment];
  alignas(64) std::uint8_t classes[kSegment];  // of the segment that is being ranked
};

// What rules that draw are given besides a run: a thread's memory, and masks that were kept.
struct Drawn {
  RankedRun* runs = nullptr;  // one a source; null if no rule ranks
  std::int64_t count = 0;     // elements of the tensor
  // One a source, or null; of each, null or one bit an element, set where it is kept. Bits that are
  // known are used instead of draws, others are to be filled, a canonical block at a time.
  std::uint8_t* const* masks = nullptr;
  bool known = false;
};

}  // namespace pymerge
