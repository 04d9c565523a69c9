// L1 norms of task vectors, before and after their masks. Contract: spec.py.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "core/operand.h"

namespace pymerge {

struct MaskedTotals {
  double total;        // sum of |D|
  double kept;         // sum of |D| where the mask is 1
  std::int64_t count;  // ones in the mask
};

struct MaskedSumKernel {
  // One canonical tile's sums, block partials added in order (float64 lanes). `base` may be null.
  void (*tile)(const Operand* tensors, const Rule* rules, int n, const Operand* base,
               Compute compute, Range tile, MaskedTotals* totals, void* scratch);
  std::size_t scratch_bytes;
};

PYMERGE_DECLARE_LEVELS(MaskedSumKernel, masked_sum);

}  // namespace pymerge
