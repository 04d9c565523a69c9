// The near way of row_divergence: float32, no term below zero. Constants and bounds: spec.py.
#pragma once

#include "common/chunk.h"
#include "common/lanes.h"
#include "row_divergence/row_divergence.h"

namespace pymerge {
namespace {

template <int n>
inline float horner(const float (&coefficients)[n], float x) {
  float y = coefficients[0];
#pragma GCC unroll 16
  for (int i = 1; i < n; ++i) y = y * x + coefficients[i];
  return y;
}

// Elements of whole sets of lanes.
inline int whole_lanes(std::int64_t n) {
  return static_cast<int>((n + kLanes - 1) / kLanes * kLanes);
}

// e^base by so many halvings, e^(value - base) - 1, and the largest |value - base| and |base|.
inline void grow(const float* __restrict value, const float* __restrict base, int n, int halvings,
                 float* __restrict exps, float* __restrict growth, NearRow& row) {
  constexpr float kExp[] = {0x1.6ef178p-10f, 0x1.13ec6ap-7f, 0x1.55527ap-5f, 0x1.554f9cp-3f,
                            0x1.000002p-1f,  0x1.000006p+0f, 0x1.000000p+0f};
  constexpr float kGrowth[] = {1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f};
  const float half = 1.0f / static_cast<float>(1 << halvings);
  // As bit patterns, whose maximum vectorizes: they order like the magnitudes.
  std::uint32_t move = bits_of(row.move);
  std::uint32_t size = bits_of(row.size);
  for (int e = 0; e < n; ++e) {
    const float delta = value[e] - base[e];
    move = std::max(move, bits_of(delta) & 0x7fffffffu);
    size = std::max(size, bits_of(base[e]) & 0x7fffffffu);
    exps[e] = horner(kExp, base[e] * half);
    growth[e] = horner(kGrowth, delta) * delta;
  }
  for (int step = 0; step < halvings; ++step) {
    for (int e = 0; e < n; ++e) exps[e] *= exps[e];
  }
  row.move = real_of<float>(move);
  row.size = real_of<float>(size);
}

void near_mass(const Operand* sides, Range segment, int halvings, NearRow& row, float* kept,
               void* scratch) {
  auto* const values = static_cast<float*>(scratch);
  for (std::int64_t done = 0; done < segment.count; done += kBlock) {
    const int n = static_cast<int>(std::min(kBlock, segment.count - done));
    decode(sides[0], segment.begin + done, n, values);
    decode(sides[1], segment.begin + done, n, values + kBlock);
    float* const exps = kept + done;
    float* const growth = kept + kRowSegment + done;
    grow(values, values + kBlock, n, halvings, exps, growth, row);
    const int whole = whole_lanes(n);
    for (int e = n; e < whole; ++e) exps[e] = growth[e] = 0;
    using L = Lanes<float>;
    row.mass += block_sum<float>([=](int k) { return L::load(exps + k); }, whole);
    row.shift +=
        block_sum<float>([=](int k) { return L::load(exps + k) * L::load(growth + k); }, whole);
  }
}

void near_divergence(const float* kept, std::int64_t count, NearRow& row) {
  constexpr float kTerm[] = {1.0f / 30, -1.0f / 20, 1.0f / 12, -1.0f / 6, 1.0f / 2};
  const double mean = row.shift / row.mass;
  const auto middle = static_cast<float>(mean);
  const auto scale = static_cast<float>(1.0 / row.mass);
  const auto back = static_cast<float>(1.0 / (1.0 + mean));
  for (std::int64_t done = 0; done < count; done += kBlock) {
    const float* __restrict exps = kept + done;
    const float* __restrict growth = kept + kRowSegment + done;
    alignas(64) float terms[kBlock];
    const int whole = whole_lanes(std::min(kBlock, count - done));
    for (int e = 0; e < whole; ++e) {
      const float share = exps[e] * scale;
      const float q = share + 1e-8f;
      const float r = (share / q) * ((growth[e] - middle) * back);
      terms[e] = ((r * r) * q) * horner(kTerm, r);
    }
    row.divergence +=
        block_sum<float>([&terms](int k) { return Lanes<float>::load(terms + k); }, whole);
  }
}

}  // namespace
}  // namespace pymerge
