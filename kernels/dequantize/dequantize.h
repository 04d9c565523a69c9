// Codes of few bits and the scales of their blocks, as float32. Contract: spec.py, packed.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/isa_symbols.h"

namespace pymerge {

// 8-bit floats, in the order of DequantizeKernel::scale_row.
enum class Fp8 : std::uint8_t { kE4M3, kE5M2, kCount };

// Blocks that hold their scales, as GGUF files have them; in the order of kPackedFormats.
enum class Packed : std::uint8_t {
  kF32LessOne,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2K,
  kQ3K,
  kQ4K,
  kQ5K,
  kQ6K,
  kCount,
};

struct PackedFormat {
  const char* name;
  int elements;  // of a block
  int bytes;
};

inline constexpr PackedFormat kPackedFormats[] = {
    {"F32_LESS_ONE", 1, 4}, {"Q8_0", 32, 34},   {"Q4_0", 32, 18},   {"Q4_1", 32, 20},
    {"Q5_0", 32, 22},       {"Q5_1", 32, 24},   {"Q2_K", 256, 84},  {"Q3_K", 256, 110},
    {"Q4_K", 256, 144},     {"Q5_K", 256, 176}, {"Q6_K", 256, 210},
};
inline constexpr int kMostPacked = 256;  // elements of a block

struct DequantizeKernel {
  // n codes of one row, from `column` on; scales[i] is that of columns [i width, (i + 1) width).
  void (*scale_row[static_cast<int>(Fp8::kCount)])(const std::uint8_t* codes, std::int64_t column,
                                                   std::int64_t n, const float* scales,
                                                   std::int64_t width, float* out);
  // Codes `begin` to `begin + n` of E2M1, two in a byte, the low nibble first; each has a scale of
  // its own, E8M0: scales[begin] is the first one's.
  void (*scale_each)(const std::uint8_t* codes, std::int64_t begin, std::int64_t n,
                     const std::uint8_t* scales, float* out);
  // n whole blocks.
  void (*unpack[static_cast<int>(Packed::kCount)])(const std::byte* blocks, std::int64_t n,
                                                   float* out);
};

PYMERGE_DECLARE_LEVELS(DequantizeKernel, dequantize);

}  // namespace pymerge
