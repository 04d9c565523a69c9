// Numbers that are drawn for each element, added to float32. Contract: spec.py.
#pragma once

#include <cstdint>

#include "common/isa_symbols.h"

namespace pymerge {

// In the order of NoiseKernel::add.
enum class Noise : std::uint8_t { kNormal, kUniform, kCount };

struct NoiseKernel {
  // To elements [begin, begin + n) of a tensor, which lie in one canonical block; out[0] is the
  // first of them.
  void (*add[static_cast<int>(Noise::kCount)])(std::uint64_t key, std::int64_t begin, int n,
                                               float scale, float* out);
};

PYMERGE_DECLARE_LEVELS(NoiseKernel, noise);

}  // namespace pymerge
