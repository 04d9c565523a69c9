// The int8 mask that a rule stands for, as an array. Contract: spec.py.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "common/segments.h"
#include "core/operand.h"

namespace pymerge {

struct MaskKernel {
  // mask[range.count] of a task vector held as a tensor.
  void (*fill)(const Operand& delta, const Rule& rule, const Drawn& drawn, Compute compute,
               Range range, std::int8_t* mask, void* scratch);
  std::size_t scratch_bytes;
};

PYMERGE_DECLARE_LEVELS(MaskKernel, mask);

}  // namespace pymerge
