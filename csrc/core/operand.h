// A whole tensor as kernels see it: where it is and what it is made of. Flat, row-major.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace pymerge {

struct Operand {
  const void* data;
  DType dtype;
};

// A run of elements of a tensor, by flat index.
struct Range {
  std::int64_t begin;
  std::int64_t count;
};

}  // namespace pymerge
