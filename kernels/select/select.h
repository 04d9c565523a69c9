// Exact order statistics of magnitudes |X_i - B|, or of how far the tensors are apart, on their bit
// patterns, without sorting. Contract: spec.py; the rounds that narrow a bracket down to the answer
// are in job.cc.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "core/operand.h"

namespace pymerge {

// What one entry (a tensor and the bracket it is searched in) asks of a pass over a tile.
struct SelectEntry {
  Operand tensor;
  const Operand* apart;  // if not null: keys are of how far these are apart, `tensor` is not read
  int n_apart;
  std::uint64_t low;  // bracket of keys, inclusive
  std::uint64_t high;
  // Out of scan: keys above the bracket, at its top, strictly inside, at its bottom (0 if that is
  // the top). The ends are counted apart because real task vectors have few distinct magnitudes:
  // one of them may hold 5 % of a tensor, and a bracket's ends are likely to be such.
  std::int64_t above;
  std::int64_t at_high;
  std::int64_t inside;
  std::int64_t at_low;
  void* found;  // out of scan: the keys inside, in flat order (room for a piece), or null to count
  int shift;    // of histogram: bucket = (key - low) >> shift
  std::uint32_t* buckets;  // out of histogram: atomically increased
};

struct SelectKernel {
  // keys[range.count] of one entry: uint32 for float32, uint64 for float64.
  void (*keys)(const SelectEntry& entry, const Operand* base, Compute compute, Range range,
               void* keys, void* scratch);
  // One pass over a piece for all entries.
  void (*scan)(SelectEntry* entries, int n, const Operand* base, Compute compute, Range tile,
               void* scratch);
  // The same pass, counting keys inside the bracket by bucket.
  void (*histogram)(SelectEntry* entries, int n, const Operand* base, Compute compute, Range tile,
                    void* scratch);
  // The same into buckets that no other thread has.
  void (*histogram_alone)(SelectEntry* entries, int n, const Operand* base, Compute compute,
                          Range tile, void* scratch);
  std::size_t scratch_bytes;
};

PYMERGE_DECLARE_LEVELS(SelectKernel, select);

}  // namespace pymerge
