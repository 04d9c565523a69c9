// Pairwise inner products of n tensors, or of their task vectors D_i = X_i - B. Contract: spec.py.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "common/lines.h"
#include "core/operand.h"

namespace pymerge {

struct GramKernel {
  // Adds the block partials of `range` (whole blocks of one canonical tile), in order, to
  // sums[n (n + 1) / 2]: the pairs (0, 0), (0, 1), ..., (1, 1), ... `narrow`: every product is
  // exact in float32 (all inputs bf16 or f16, no base), so lanes are float32; else they are
  // float64. `base` may be null.
  void (*add)(const Operand* tensors, int n, const Operand* base, Compute compute, bool narrow,
              Range range, double* sums, void* scratch);
  std::size_t (*scratch_bytes)(int n);
  // The same for each row, to sums[row][n (n + 1) / 2]; the part of a row that began before `tile`
  // (the flat index at which the canonical tile of `range` begins) to `edge` instead.
  void (*add_rows)(const Operand* tensors, int n, const Operand* base, Compute compute, bool narrow,
                   Range range, const Lines& lines, std::int64_t tile, double* sums, double* edge,
                   void* scratch);
  // The same for each column, every element in order, in float64, to sums[n (n + 1) / 2][column].
  void (*add_columns)(const Operand* tensors, int n, const Operand* base, Compute compute,
                      Range range, const Lines& lines, double* sums, void* scratch);
};

PYMERGE_DECLARE_LEVELS(GramKernel, gram);

}  // namespace pymerge
