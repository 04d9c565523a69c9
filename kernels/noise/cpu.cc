// noise on the CPU: both intervals of the normal distribution are worked out for every element, and
// one is chosen, so that compilers make vectors of the loop.
#include <cmath>

#include "common/chunk.h"
#include "common/random.h"
#include "noise/noise.h"
#include "row_divergence/fixed_math.h"

namespace pymerge {
namespace {

// Half a canonical block takes the draws of one: 32 bits an element.
constexpr int kHalf = static_cast<int>(kBlock) / 2;

template <int count>
inline double horner(const double (&coefficients)[count], double x) {
  double y = coefficients[0];
#pragma GCC unroll 8
  for (int i = 1; i < count; ++i) y = y * x + coefficients[i];
  return y;
}

inline double normal(double u) {
  constexpr double kNear[2][8] = {
      {2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
       4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
       1.3314166789178437745e2, 3.3871328727963666080e0},
      {5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
       2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2,
       4.2313330701600911252e1, 1.0},
  };
  constexpr double kFar[2][8] = {
      {7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
       1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
       4.63033784615654529590e0, 1.42343711074968357734e0},
      {1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
       1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
       2.05319162663775882187e0, 1.0},
  };
  const double q = u - 0.5;
  const double r = 0.180625 - q * q;
  const double middle = q * (horner(kNear[0], r) / horner(kNear[1], r));
  const double t = std::sqrt(-fixed_log(q < 0.0 ? u : 1.0 - u)) - 1.6;
  const double tail = horner(kFar[0], t) / horner(kFar[1], t);
  return std::fabs(q) <= 0.425 ? middle : (q < 0.0 ? -tail : tail);
}

inline double uniform(double u) { return 2.0 * u - 1.0; }

// What is drawn for half a block.
template <double (*function)(double)>
inline void draw_half(std::uint64_t key, std::int64_t half, float* out) {
  alignas(64) std::uint16_t draws[plain::kDraws];
  block_draws(key, half, draws);
  for (int word = 0; word < 4; ++word) {
    const std::uint16_t* const low = draws + 2 * word * plain::kCounters;
    const std::uint16_t* const high = low + plain::kCounters;
    float* const to = out + word * plain::kCounters;
    for (int j = 0; j < plain::kCounters; ++j) {
      const std::uint32_t bits = low[j] | static_cast<std::uint32_t>(high[j]) << 16;
      // There are no conversions of unsigned integers at every level: bits become the last of 2^52.
      const double value = real_of<double>(bits | 0x4330000000000000u) - 0x1p52;
      to[j] = static_cast<float>(function((value + 0.5) * 0x1p-32));
    }
  }
}

template <double (*function)(double)>
void add(std::uint64_t key, std::int64_t begin, int n, float scale, float* out) {
  alignas(64) float drawn[kHalf];
  const std::int64_t end = begin + n;
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t half = at / kHalf;
    const auto first = static_cast<int>(at - half * kHalf);
    const std::int64_t left = end - half * kHalf;
    const int last = left < kHalf ? static_cast<int>(left) : kHalf;
    draw_half<function>(key, half, drawn);
    float* const to = out + (at - begin) - first;
    for (int i = first; i < last; ++i) to[i] += scale * drawn[i];
    at += last - first;
  }
}

}  // namespace

PYMERGE_EXPORT(NoiseKernel, noise) = {{add<normal>, add<uniform>}};

}  // namespace pymerge
