// Y = sum_i c_i X_i. Contract: spec.py.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "common/lines.h"
#include "core/operand.h"

namespace pymerge {

struct WeightedSumKernel {
  // Elements `range` of the output, the first of them at `out`, with coefficients[n][lines.count].
  // `base` may be null. Returns whether a stored value is not finite.
  bool (*fill)(const Operand* tensors, int n, const Operand* base, const double* coefficients,
               const Lines& lines, Compute compute, Range range, DType out_dtype, void* out,
               void* scratch);
  std::size_t scratch_bytes;
};

PYMERGE_DECLARE_LEVELS(WeightedSumKernel, weighted_sum);

}  // namespace pymerge
