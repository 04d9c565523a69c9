// Y = X where it is within t of the base, else the base moved by t towards it. Contract: spec.py.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "core/operand.h"

namespace pymerge {

struct NearSwapKernel {
  // Elements `range` of the output, the first of them at `out`. Returns whether a stored value is
  // not finite.
  bool (*fill)(const Operand& tensor, const Operand& base, double t, Compute compute, Range range,
               DType out_dtype, void* out, void* scratch);
  std::size_t scratch_bytes;
};

PYMERGE_DECLARE_LEVELS(NearSwapKernel, near_swap);

}  // namespace pymerge
