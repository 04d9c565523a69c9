// Exact order statistics of magnitudes |X_i - B|, of those times a factor a line, or of how far the
// tensors are apart, on their bit patterns, without sorting. Contract: spec.py; the rounds that
// narrow a bracket down to the answer are in job.cc.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "common/lines.h"
#include "core/operand.h"

namespace pymerge {

// What one entry (a tensor and the bracket it is searched in) asks of a pass over a tile.
struct SelectEntry {
  Operand tensor;
  std::uint64_t low;  // bracket of keys, inclusive
  std::uint64_t high;
  // Out of scan: keys above the bracket, at its top, strictly inside, at its bottom (0 if that is
  // the top). The ends are counted apart because real task vectors have few distinct magnitudes:
  // one of them may hold 5 % of a tensor, and a bracket's ends are likely to be such.
  std::int64_t above;
  std::int64_t at_high;
  std::int64_t inside;
  std::int64_t at_low;
  std::int64_t zeros;  // out of scan: of spreads, how many are 0
  void* found;  // out of scan: the keys inside, in flat order (room for a piece), or null to count
  int shift;    // of histogram: bucket = (key - low) >> shift
  std::uint32_t* buckets;  // out of histogram: atomically increased
};

// What is ordered.
struct SelectOf {
  LineFactors factors;  // of magnitudes, if there are any
  const Operand* apart =
      nullptr;  // if not null: how far these are apart, whatever the entries' tensors
  int n_apart = 0;
};

struct SelectKernel {
  // keys[range.count] of one tensor: uint32 for float32, uint64 for float64.
  void (*keys)(const Operand& tensor, const Operand* base, const SelectOf& of, Compute compute,
               Range range, void* keys, void* scratch);
  // One pass over a piece for all entries; those of one tensor stand side by side.
  void (*scan)(SelectEntry* entries, int n, const Operand* base, const SelectOf& of,
               Compute compute, Range tile, void* scratch);
  // The same pass, counting keys inside the bracket by bucket.
  void (*histogram)(SelectEntry* entries, int n, const Operand* base, const SelectOf& of,
                    Compute compute, Range tile, void* scratch);
  // The same into buckets that no other thread has.
  void (*histogram_alone)(SelectEntry* entries, int n, const Operand* base, const SelectOf& of,
                          Compute compute, Range tile, void* scratch);
  std::size_t scratch_bytes;
};

PYMERGE_DECLARE_LEVELS(SelectKernel, select);

}  // namespace pymerge
