// Numbers for the vectors that a tensor is cut into: lines.py's contract, on the device.
#pragma once

#include "common/cuda/launch.cuh"
#include "common/lines.h"

namespace pymerge::cuda {

// Divides by 32 bits where that is enough: 64 take a device four times as long.
__device__ __forceinline__ std::int64_t divide(std::int64_t a, std::int64_t b,
                                               std::int64_t& remainder) {
  if ((a | b) >> 32 == 0) {
    const auto quotient = static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b);
    remainder = static_cast<std::uint32_t>(a) - quotient * static_cast<std::uint32_t>(b);
    return quotient;
  }
  const std::int64_t quotient = a / b;
  remainder = a - quotient * b;
  return quotient;
}

// Calls body(i, line) for the n elements from flat index `at` on.
template <int n, typename Body>
__device__ __forceinline__ void for_lines(const Lines& lines, std::int64_t at, const Body& body) {
  std::int64_t rest;
  if (lines.strided) {
    divide(at, lines.count, rest);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      body(i, rest);
      if (++rest == lines.count) rest = 0;
    }
  } else {
    std::int64_t line = divide(at, lines.length, rest);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      body(i, line);
      if (++rest == lines.length) {
        rest = 0;
        ++line;
      }
    }
  }
}

}  // namespace pymerge::cuda
