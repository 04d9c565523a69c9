// Norms of task vectors, before and after their masks. Contract: spec.py.
#pragma once

#include <cstdint>

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "common/segments.h"
#include "core/operand.h"

namespace pymerge {

// What is added up, or the largest taken of: |D|, D D, |D|.
enum class Norm : std::uint8_t { kL1, kL2, kMax };

struct MaskedTotals {
  double total = 0;        // of all elements
  double kept = 0;         // of those where the mask is 1
  std::int64_t count = 0;  // ones in the mask
};

struct MaskedSumKernel {
  // Adds the block partials of `range` (whole blocks of one canonical tile), in order (float64
  // lanes), to totals[n]. `base` may be null.
  void (*add)(const Operand* tensors, const Rule* rules, int n, const Operand* base,
              const Drawn& drawn, Norm norm, Compute compute, Range range, MaskedTotals* totals,
              void* scratch);
  std::size_t scratch_bytes;
};

PYMERGE_DECLARE_LEVELS(MaskedSumKernel, masked_sum);

}  // namespace pymerge
