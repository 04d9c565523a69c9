// Elements of a tensor as float32, for what is derived from it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/chunk.h"
#include "io/tensor_view.h"

namespace pymerge {
namespace {

// Elements `range` of a tensor; `scratch` has nothing else in its copies.
inline void read_floats(const TensorView& view, Range range, float* out, Scratch& scratch) {
  constexpr std::int64_t kStep = 64 * kBlock;
  const std::int64_t step = std::min(kStep, range.count);
  std::byte* const stored =
      scratch.take_copies(static_cast<std::size_t>(step * item_size(view.dtype)));
  for (std::int64_t at = 0; at < range.count; at += step) {
    const std::int64_t n = std::min(step, range.count - at);
    view.read({range.begin + at, n}, stored, scratch);
    for_each_chunk({0, n}, [&](std::int64_t begin, int m) {
      decode(Operand{stored, view.dtype}, begin, m, out + at + begin);
    });
  }
}

}  // namespace
}  // namespace pymerge
