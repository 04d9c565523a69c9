// Y = sum_i c_i X_i. Contract: spec.py.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "core/operand.h"

namespace pymerge {

struct WeightedSumKernel {
  // Elements `range` of the output, the first of them at `out`. Returns whether a stored value is
  // not finite.
  bool (*fill)(const Operand* tensors, const double* coefficients, int n, Compute compute,
               Range range, DType out_dtype, void* out, void* scratch);
  std::size_t scratch_bytes;
};

PYMERGE_DECLARE_LEVELS(WeightedSumKernel, weighted_sum);

}  // namespace pymerge
