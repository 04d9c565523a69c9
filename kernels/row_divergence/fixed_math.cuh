// exp and log as fixed sequences of operations, and the near way's polynomials, on the device.
// Constants and bounds: spec.py.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace pymerge::cuda {

template <int n, typename Real>
__device__ __forceinline__ Real horner(const Real (&coefficients)[n], Real x) {
  Real y = coefficients[0];
#pragma unroll
  for (int i = 1; i < n; ++i) y = y * x + coefficients[i];
  return y;
}

inline constexpr double kLn2High = 0x1.62e42feep-1;
inline constexpr double kLn2Low = 0x1.a39ef35793c76p-33;

// e^x for x <= 0.
__device__ __forceinline__ double fixed_exp(double x) {
  constexpr double kLog2e = 0x1.71547652b82fep+0;
  constexpr double kMagic = 0x1.8p52;
  constexpr double kPowers[] = {1.0 / 6227020800.0,
                                1.0 / 479001600.0,
                                1.0 / 39916800.0,
                                1.0 / 3628800.0,
                                1.0 / 362880.0,
                                1.0 / 40320.0,
                                1.0 / 5040.0,
                                1.0 / 720.0,
                                1.0 / 120.0,
                                1.0 / 24.0,
                                1.0 / 6.0,
                                1.0 / 2.0,
                                1.0,
                                1.0};
  x = x < -708.0 ? -708.0 : x;
  const double shifted = x * kLog2e + kMagic;
  const double n = shifted - kMagic;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  const auto word = static_cast<std::uint64_t>(__double_as_longlong(shifted));
  return horner(kPowers, r) * __longlong_as_double(static_cast<long long>((word + 1023u) << 52));
}

// log y for normal, positive y.
__device__ __forceinline__ double fixed_log(double y) {
  constexpr std::uint64_t kCenter = 0x3ff0000000000000u - 0x3fe6a09e667f3bcdu;
  constexpr double kSeries[] = {1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11,
                                1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3,  1.0};
  const auto word = static_cast<std::uint64_t>(__double_as_longlong(y));
  const std::uint64_t exponent = (word + kCenter) >> 52;
  const double m = __longlong_as_double(static_cast<long long>(word - ((exponent - 1023u) << 52)));
  const double n = static_cast<double>(static_cast<int>(exponent)) - 1023.0;
  const double f = (m - 1.0) / (m + 1.0);
  return n * kLn2High + (n * kLn2Low + (f + f) * horner(kSeries, f * f));
}

// e^base, by so many halvings.
__device__ __forceinline__ float near_exp(float base, float half, int halvings) {
  constexpr float kExp[] = {0x1.6ef178p-10f, 0x1.13ec6ap-7f, 0x1.55527ap-5f, 0x1.554f9cp-3f,
                            0x1.000002p-1f,  0x1.000006p+0f, 0x1.000000p+0f};
  float power = horner(kExp, base * half);
  for (int step = 0; step < halvings; ++step) power = power * power;
  return power;
}

// e^delta - 1.
__device__ __forceinline__ float near_growth(float delta) {
  constexpr float kGrowth[] = {1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f};
  return horner(kGrowth, delta) * delta;
}

// (1 + r) log(1 + r) - r, over r^2.
__device__ __forceinline__ float near_term(float r) {
  constexpr float kTerm[] = {1.0f / 30, -1.0f / 20, 1.0f / 12, -1.0f / 6, 1.0f / 2};
  return horner(kTerm, r);
}

}  // namespace pymerge::cuda
