// Y = B + (|D k| >= threshold ? D : 0), k per line. Contract: spec.py.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "common/lines.h"
#include "core/operand.h"

namespace pymerge {

struct FusionKernel {
  // Elements `range` of the output, the first of them at `out`. Returns whether a stored value is
  // not finite.
  bool (*fill)(const Operand& tensor, const Operand& base, const LineFactors& factors,
               double threshold, Compute compute, Range range, DType out_dtype, void* out,
               void* scratch);
  std::size_t scratch_bytes;
};

PYMERGE_DECLARE_LEVELS(FusionKernel, fusion);

}  // namespace pymerge
