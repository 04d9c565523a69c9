// Elements as GGUF files store them. Contract: spec.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/isa_symbols.h"

namespace pymerge {

// In the order of kPackFormats.
enum class PackFormat : std::uint8_t { kF32, kF16, kBF16, kF32PlusOne, kQ8_0, kCount };

struct PackedBlock {
  const char* name;
  int elements;
  int bytes;
};

inline constexpr PackedBlock kPackFormats[] = {
    {"F32", 1, 4}, {"F16", 1, 2}, {"BF16", 1, 2}, {"F32_PLUS_ONE", 1, 4}, {"Q8_0", 32, 34},
};

struct PackKernel {
  // n whole blocks; returns how many of the elements stored are not finite.
  std::int64_t (*pack[static_cast<int>(PackFormat::kCount)])(const float* in, std::int64_t n,
                                                             std::byte* out);
};

PYMERGE_DECLARE_LEVELS(PackKernel, pack);

}  // namespace pymerge
