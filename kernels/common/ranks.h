// Chances by rank: the thresholds that draws must be below, for whole segments of rows. Contract:
// ranks.py.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "common/chunk.h"
#include "common/segments.h"
#include "common/vectors.h"

namespace pymerge {
namespace {

// 16 octaves of 16 classes: a row's outliers may be far above the rest, so octaves are many; and a
// class is a byte. With 512 classes rows of 1,024 took 0.25 ns an element more.
inline constexpr int kClassBits = 4;
using plain::kClasses;
// Rows up to this are ranked by comparing: counting looks at every class.
inline constexpr int kShortRow = 48;

// How far magnitudes are shifted to keys.
template <typename Real>
inline constexpr int kKeyShift = (std::is_same_v<Real, double> ? 52 : 23) - kClassBits;
template <typename Real>
inline constexpr int kInfiniteKey = static_cast<int>(BitsOf<Real>::kInfinity >> kKeyShift<Real>);

// write_keys as far as whole pairs of vectors go; returns how many keys those are.
template <typename V>
inline std::int64_t write_key_vectors(const Operand& tensor, const Operand* base, Range range,
                                      std::uint16_t* keys) {
  std::int64_t done = 0;
  if constexpr (V::kWidth > 0) {
    if (base == nullptr) return 0;
    with_dtype(&tensor, 1, base, [&](auto dtype) {
      const VectorInput<V, dtype()> input(tensor, range.begin);
      const VectorInput<V, dtype()> origin(*base, range.begin);
      const auto key = [&](std::int64_t i) {
        const auto bits = V::magnitude_bits(V::subtract(input[i], origin[i]));
        return V::shift_right(bits, kKeyShift<float>);
      };
      for (; done + 2 * V::kWidth <= range.count; done += 2 * V::kWidth) {
        V::store_narrow(keys + done, key(done), key(done + V::kWidth));
      }
    });
  }
  return done;
}

// The keys of a segment of a task vector.
template <typename Real>
inline void write_keys(const Operand& tensor, const Operand* base, Range range,
                       std::uint16_t* __restrict keys) {
  Real value[kBlock];
  Real origin[kBlock];
  for (std::int64_t at = write_key_vectors<VectorFor<Real>>(tensor, base, range, keys);
       at < range.count; at += kBlock) {
    const int n = static_cast<int>(std::min(kBlock, range.count - at));
    decode(tensor, range.begin + at, n, value);
    if (base != nullptr) {
      decode(*base, range.begin + at, n, origin);
      for (int i = 0; i < n; ++i) value[i] -= origin[i];
    }
    for (int i = 0; i < n; ++i) {
      const auto magnitude = static_cast<Bits<Real>>(bits_of(value[i]) << 1);
      keys[at + i] = static_cast<std::uint16_t>(magnitude >> (kKeyShift<Real> + 1));
    }
  }
}

// From keys to classes.
template <typename Real>
inline void write_classes(const std::uint16_t* __restrict keys, int n,
                          std::uint8_t* __restrict classes) {
  std::uint16_t top = 0;
  for (int i = 0; i < n; ++i) top = std::max(top, keys[i]);
  if (top >= kInfiniteKey<Real>) {
    top = 0;
    for (int i = 0; i < n; ++i) {
      top = std::max(top, keys[i] < kInfiniteKey<Real> ? keys[i] : std::uint16_t{0});
    }
  }
  // What is not finite stays out of the classes below: the largest finite key is kClasses - 2.
  const auto first = static_cast<std::uint16_t>(std::max(0, top - (kClasses - 2)));
  constexpr std::uint16_t kLast = kClasses - 1;
  for (int i = 0; i < n; ++i) {
    const auto above = static_cast<std::uint16_t>(std::max(keys[i], first) - first);
    classes[i] = static_cast<std::uint8_t>(std::min(above, kLast));
  }
}

// The threshold of a rank that is so many half steps from the middle.
class Chances {
 public:
  Chances(const Rule& rule, int n)
      : middle_(rule.density * 65536.0 + 0.5),
        slope_(rule.epsilon * 65536.0 / std::max(1, n - 1)) {}
  // Comparisons in the order of the processor's own minimum and maximum.
  std::uint16_t operator()(int steps) const {
    const double threshold = middle_ + slope_ * steps;
    const double positive = threshold > 1.0 ? threshold : 1.0;
    return static_cast<std::uint16_t>(static_cast<int>(positive < 65535.0 ? positive : 65535.0));
  }

 private:
  const double middle_;
  const double slope_;
};

// From classes to thresholds, each element against all others.
inline void rank_short(const Chances& chances, const std::uint8_t* classes, int n,
                       std::uint16_t* __restrict thresholds) {
  for (int i = 0; i < n; ++i) {
    int below = 0;  // twice what is below, plus what is equal
    for (int k = 0; k < n; ++k) below += (classes[k] < classes[i]) + (classes[k] <= classes[i]);
    thresholds[i] = chances(below - n);
  }
}

// The same by counting classes. Eight are loaded at once; four tables, so that equal neighbors do
// not wait for each other, of words, which x86 adds to faster than to half ones.
inline void rank_long(const Chances& chances, const std::uint8_t* classes, int n,
                      std::uint16_t* __restrict thresholds) {
  std::uint32_t counts[4][kClasses];
  std::memset(counts, 0, sizeof counts);
  const int whole = n / 8 * 8;
  for (int i = 0; i < whole; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, classes + i, sizeof eight);
    for (int k = 0; k < 8; ++k) ++counts[k % 4][eight >> (8 * k) & 0xff];
  }
  for (int i = whole; i < n; ++i) ++counts[0][classes[i]];
  // One loop each, so that all but the sums are vectors.
  std::uint32_t totals[kClasses];
  int steps[kClasses];
  std::uint16_t table[kClasses];
  for (int c = 0; c < kClasses; ++c) {
    totals[c] = counts[0][c] + counts[1][c] + counts[2][c] + counts[3][c];
  }
  int below = -n;
  for (int c = 0; c < kClasses; ++c) {
    const auto count = static_cast<int>(totals[c]);
    steps[c] = below + count;
    below += 2 * count;
  }
  for (int c = 0; c < kClasses; ++c) table[c] = chances(steps[c]);
  simd::look_up(table, totals, classes, n, thresholds);
}

// Ranks the segments that elements [begin, begin + n) lie in, as many as one run holds.
template <typename Real>
inline void rank_run(const Rule& rule, const Operand& tensor, const Operand* base,
                     std::int64_t count, std::int64_t begin, int n, RankedRun& run) {
  Range segment = segment_of(begin, rule.row, count);
  run.begin = run.end = segment.begin;
  while (run.end < begin + n && run.end - run.begin + segment.count <= kSegment) {
    std::uint16_t* const thresholds = run.thresholds + (run.end - run.begin);
    const int size = static_cast<int>(segment.count);
    write_keys<Real>(tensor, base, segment, thresholds);
    write_classes<Real>(thresholds, size, run.classes);
    const Chances chances(rule, size);
    size <= kShortRow ? rank_short(chances, run.classes, size, thresholds)
                      : rank_long(chances, run.classes, size, thresholds);
    run.end += segment.count;
    if (run.end < count) segment = segment_of(run.end, rule.row, count);
  }
}

// draws[i] = 0 if element begin + i is kept, else 0xffff, from its draw.
template <typename Real>
inline void decide_draws(const Rule& rule, const Operand& tensor, const Operand* base,
                         std::int64_t count, std::int64_t begin, int n, RankedRun& run,
                         std::uint16_t* __restrict draws) {
  for (int from = 0; from < n;) {
    const std::int64_t at = begin + from;
    if (at < run.begin || at >= run.end) {
      rank_run<Real>(rule, tensor, base, count, at, n - from, run);
    }
    const int to = static_cast<int>(std::min<std::int64_t>(n, run.end - begin));
    const std::uint16_t* __restrict thresholds = run.thresholds + (begin - run.begin);
    for (int i = from; i < to; ++i) draws[i] = draws[i] < thresholds[i] ? 0 : 0xffff;
    from = to;
  }
}

}  // namespace
}  // namespace pymerge
