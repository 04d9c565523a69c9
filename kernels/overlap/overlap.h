// How often each task vector changes an element alone, and how often others change it too.
// Contract: spec.py.
#pragma once

#include <cstdint>

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "common/segments.h"
#include "core/operand.h"

namespace pymerge {

struct OverlapCounts {
  std::int64_t alone = 0;
  std::int64_t shared = 0;
};

struct OverlapKernel {
  // Adds the counts of `range` to counts[n]. `base` may be null.
  void (*add)(const Operand* tensors, const Rule* rules, int n, const Operand* base,
              const Drawn& drawn, Compute compute, Range range, OverlapCounts* counts,
              void* scratch);
  std::size_t (*scratch_bytes)(int n);
};

PYMERGE_DECLARE_LEVELS(OverlapKernel, overlap);

}  // namespace pymerge
