// Y = B + S: masked, scaled task vectors, with or without sign election, in one pass. Contract:
// spec.py.
#pragma once

#include <cstdint>

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "common/segments.h"
#include "core/operand.h"

namespace pymerge {

// Who takes part at an element; kNone: everything is added.
enum class Consensus : std::uint8_t { kNone, kSum, kCount, kOverlap };

struct TaskMergeArgs {
  Operand base;
  const Operand* tensors;
  const Rule* rules;
  const double* coefficients;
  int n;
  Consensus consensus;
  // Read only with a consensus.
  const double* weights;  // if normalize
  bool normalize;
  double scale;
  const double* votes;  // may be null: then the coefficients
  const double* alone;  // may be null
  bool pick;            // the largest instead of the sum
  Drawn drawn;
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
