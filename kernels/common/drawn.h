// What rules that draw need around the kernels: inputs that reach over whole rows where elements
// are ranked, a thread's memory of what it has ranked, and masks kept from a measure for the
// combine.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/canonical.h"
#include "common/inputs.h"
#include "common/segments.h"
#include "runtime/aligned_buffer.h"

namespace pymerge {

// `inputs`, given out in pieces around which all tensors can be read to the ends of the segments,
// if one of the rules ranks.
Inputs reach_over_segments(Inputs inputs, const std::vector<Rule>& rules);

// A request's masks, one bit an element; null for sources that have none.
class KeptMasks {
 public:
  using Mask = std::shared_ptr<AlignedBuffer>;
  KeptMasks() = default;
  explicit KeptMasks(std::vector<Mask> masks);
  std::uint8_t* const* data() const { return data_.empty() ? nullptr : data_.data(); }

 private:
  std::vector<Mask> masks_;
  std::vector<std::uint8_t*> data_;
};

// For one piece; what was ranked stays at hand until the next pass starts.
Drawn take_drawn(const std::vector<Rule>& rules, std::int64_t count, bool starts, Scratch& scratch);

// Masks between the measure that draws them and the combine that uses them again, as far as a
// budget goes: what is not kept is drawn twice, to the same bits.
class MaskStore {
 public:
  // `budget`: bytes of all masks that exist.
  explicit MaskStore(std::int64_t budget)
      : left_(std::make_shared<std::atomic<std::int64_t>>(budget)) {}
  // Room for a measure's masks, known to the store from now on.
  KeptMasks reserve(const Inputs& inputs, const std::vector<Rule>& rules);
  // The masks of the same tensors, base and rules, once; their measure has ended.
  KeptMasks take(const Inputs& inputs, const std::vector<Rule>& rules);

 private:
  struct Entry {
    const void* tensor;
    const void* base;
    Rule rule;
    KeptMasks::Mask mask;
  };
  KeptMasks::Mask make(std::int64_t count);

  std::vector<Entry> entries_;
  // Shared with the masks, which give their part back.
  const std::shared_ptr<std::atomic<std::int64_t>> left_;
};

}  // namespace pymerge
