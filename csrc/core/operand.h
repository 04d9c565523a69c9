// A tensor as kernels see it: where it is and what it is made of. Flat, row-major.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace pymerge {

struct Operand {
  const void* data;
  DType dtype;
  // Flat index of the element at `data`: kernels always count from the tensor's start, wherever the
  // part of it that they are given lies.
  std::int64_t first = 0;
};

// A run of elements of a tensor, by flat index.
struct Range {
  std::int64_t begin;
  std::int64_t count;
};

}  // namespace pymerge
