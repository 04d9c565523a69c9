// Floats of 8 and 4 bits as float32: bits moved into place, without tables, so that compilers make
// vectors of it.
#pragma once

#include <cstdint>

#include "common/simd.h"

namespace pymerge {
namespace {

// What the largest exponent means: numbers as well; NaN where all bits are ones; infinity and NaN.
enum class Top : std::uint8_t { kNumbers, kOneNan, kIeee };

template <int exponent_bits, int mantissa_bits, Top top>
struct SmallFloat {
  static constexpr int kBits = exponent_bits + mantissa_bits;
  static constexpr int kShift = 23 - mantissa_bits;
  static constexpr std::uint32_t kMask = (1u << kBits) - 1;
  static constexpr std::uint32_t kBias = 127 - ((1u << (exponent_bits - 1)) - 1);

  static float decode(std::uint32_t code) {
    const std::uint32_t magnitude = (code & kMask) << kShift;
    // Below the least exponent there is no leading one: it is put there and subtracted.
    const float least = plain::from_bits((kBias + 1) << 23);
    const std::uint32_t denormal =
        plain::to_bits(plain::from_bits(magnitude + ((kBias + 1) << 23)) - least);
    std::uint32_t bits = magnitude < (1u << 23) ? denormal : magnitude + (kBias << 23);
    if constexpr (top == Top::kIeee) {
      constexpr std::uint32_t kLargest = ((1u << exponent_bits) - 1) << 23;
      bits = magnitude >= kLargest ? magnitude | 0x7f800000u : bits;
    }
    if constexpr (top == Top::kOneNan) bits = magnitude == kMask << kShift ? 0x7fc00000u : bits;
    return plain::from_bits(bits | (code >> kBits & 1u) << 31);
  }
};

using E4M3 = SmallFloat<4, 3, Top::kOneNan>;
using E5M2 = SmallFloat<5, 2, Top::kIeee>;
using E2M1 = SmallFloat<2, 1, Top::kNumbers>;

// Powers of two; the least is denormal, 255 is NaN.
inline float decode_e8m0(std::uint32_t code) {
  const std::uint32_t bits = code == 0 ? 0x00400000u : code << 23;
  return plain::from_bits(code == 255 ? 0x7fc00000u : bits);
}

}  // namespace
}  // namespace pymerge
