// Y += s B A, a product of two thin matrices, added to some rows and columns. Contract: spec.py.
#pragma once

#include <cstdint>

#include "common/isa_symbols.h"

namespace pymerge {

// A is packed by tiles of so many columns, [tiles][rank][kTileColumns], the last one filled up:
// what one step of a product needs is then one cache line, whatever the matrix's width is.
inline constexpr int kTileColumns = 16;

struct LowRankKernel {
  // a: all of A, packed; b: [rows][rank], contiguous; out: [rows][columns], rows `out_stride`
  // apart, of which the first column is A's column `column`. All float32.
  void (*add)(const float* a, const float* b, int rank, float scale, std::int64_t rows,
              std::int64_t column, std::int64_t columns, float* out, std::int64_t out_stride);
};

PYMERGE_DECLARE_LEVELS(LowRankKernel, low_rank);

}  // namespace pymerge
