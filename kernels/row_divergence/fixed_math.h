// exp and log as fixed sequences of float64 operations: the same bits everywhere, and loops over
// them vectorize. Constants and bounds: spec.py.
#pragma once

#include <cstdint>

#include "common/chunk.h"

namespace pymerge {
namespace {

inline constexpr double kLog2e = 0x1.71547652b82fep+0;
inline constexpr double kLn2High = 0x1.62e42feep-1;
inline constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
inline constexpr double kMagic = 0x1.8p52;

// e^x for x <= 0.
inline double fixed_exp(double x) {
  constexpr double kFactorials[] = {6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0,
                                    40320.0,      5040.0,      720.0,      120.0,     24.0,
                                    6.0,          2.0,         1.0,        1.0};
  x = x < -708.0 ? -708.0 : x;
  const double shifted = x * kLog2e + kMagic;
  const double n = shifted - kMagic;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double y = 1.0 / kFactorials[0];
#pragma GCC unroll 16
  for (int i = 1; i < 14; ++i) y = y * r + 1.0 / kFactorials[i];
  return y * real_of<double>((bits_of(shifted) + 1023u) << 52);
}

// log y for normal, positive y.
inline double fixed_log(double y) {
  constexpr std::uint64_t kCenter = 0x3ff0000000000000u - 0x3fe6a09e667f3bcdu;
  const std::uint64_t bits = bits_of(y);
  const std::uint64_t exponent = (bits + kCenter) >> 52;
  const double m = real_of<double>(bits - ((exponent - 1023u) << 52));
  // AVX2 has no conversion of 64-bit integers: put the exponent into the last bits of 2^52.
  const double n = real_of<double>(exponent | 0x4330000000000000u) - (0x1p52 + 1023.0);
  const double f = (m - 1.0) / (m + 1.0);
  const double s = f * f;
  double series = 1.0 / 21.0;
#pragma GCC unroll 16
  for (int i = 9; i >= 0; --i) series = series * s + 1.0 / (2 * i + 1);
  return n * kLn2High + (n * kLn2Low + (f + f) * series);
}

}  // namespace
}  // namespace pymerge
