// Y += s B A, a product of two thin matrices, added to some rows and columns. Contract: spec.py.
#pragma once

#include <cstdint>

#include "common/isa_symbols.h"

namespace pymerge {

struct LowRankKernel {
  // a: [rank][columns], rows `a_stride` apart; b: [rows][rank], contiguous; out: [rows][columns],
  // rows `out_stride` apart. All float32.
  void (*add)(const float* a, std::int64_t a_stride, const float* b, int rank, float scale,
              std::int64_t rows, std::int64_t columns, float* out, std::int64_t out_stride);
};

PYMERGE_DECLARE_LEVELS(LowRankKernel, low_rank);

}  // namespace pymerge
