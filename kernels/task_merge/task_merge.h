// Y = B + S: masked, scaled task vectors, with or without sign election, in one pass. Contract:
// spec.py.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "core/operand.h"

namespace pymerge {

struct TaskMergeArgs {
  Operand base;
  const Operand* tensors;
  const Rule* rules;
  const double* coefficients;
  const double* weights;  // read only with elect and normalize
  int n;
  bool elect;
  bool normalize;
  double scale;  // read only with elect
};

struct TaskMergeKernel {
  // Elements `range` of the output, the first of them at `out`. Returns whether a stored value is
  // not finite.
  bool (*fill)(const TaskMergeArgs& args, Compute compute, Range range, DType out_dtype, void* out,
               void* scratch);
  std::size_t (*scratch_bytes)(int n);
};

PYMERGE_DECLARE_LEVELS(TaskMergeKernel, task_merge);

}  // namespace pymerge
