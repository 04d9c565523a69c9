// Mask rules inside a tile: all-ones or zero words, ready to be ANDed with a task vector.
#pragma once

#include <cstdint>

#include "common/chunk.h"
#include "common/random.h"
#include "common/ranks.h"

namespace pymerge {
namespace {

// The least key that is inside a cut: its ties count up to flat index `last`. A cut above every key
// of the compute type (bits too wide for it) holds nothing.
template <typename Real>
inline Bits<Real> first_inside(const Rule::Cut& cut, std::int64_t index) {
  constexpr std::uint64_t kTop = static_cast<Bits<Real>>(~Bits<Real>{0});
  if (cut.bits >= kTop) return static_cast<Bits<Real>>(kTop);
  return static_cast<Bits<Real>>(cut.bits + (index > cut.last ? 1 : 0));
}

// Calls body(from, to, low, high) for the parts of a run in which a band is low <= key < high.
template <typename Real, typename Body>
inline void for_each_band(const Rule& rule, std::int64_t begin, int n, const Body& body) {
  for (int from = 0; from < n;) {
    // Up to the next index where a cut's treatment of ties changes, the thresholds are constant.
    int to = n;
    for (const std::int64_t last : {rule.outer.last, rule.inner.last}) {
      const std::int64_t change = last + 1 - begin;
      if (change > from && change < to) to = static_cast<int>(change);
    }
    body(from, to, first_inside<Real>(rule.outer, begin + from),
         first_inside<Real>(rule.inner, begin + from));
    from = to;
  }
}

// All ones where low <= key < high, else 0.
template <typename Real>
inline Bits<Real> band_word(Real delta, Bits<Real> low, Bits<Real> high) {
  const Bits<Real> key = magnitude_key(delta);
  return (key >= low) & (key < high) ? ~Bits<Real>{0} : Bits<Real>{0};
}

// One source under its rule: what a mask may need beyond the run that it is made for.
struct Masked {
  const Rule& rule;
  const Operand& tensor;
  const Operand* base;  // may be null
  Drawn drawn = {};
  int source = 0;
};

// Bytes of a canonical block's mask, one bit an element.
inline constexpr int kMaskBytes = kBlock / 8;

// The mask of the canonical block that a run lies in, set where an element of the run is kept: what
// is known of it, else drawn into what is kept of it, or into `space` (kMaskBytes).
template <typename Real>
inline const std::uint8_t* drawn_mask(const Masked& masked, std::int64_t begin, int n,
                                      std::uint8_t* space) {
  const Rule& rule = masked.rule;
  const Drawn& drawn = masked.drawn;
  const std::int64_t block = begin / kBlock;
  std::uint8_t* const mask = drawn.masks == nullptr ? nullptr : drawn.masks[masked.source];
  std::uint8_t* const bits = mask == nullptr ? space : mask + block * kMaskBytes;
  if (mask != nullptr && drawn.known) return bits;
  alignas(64) std::uint16_t draws[kBlock];
  block_draws(rule.key, block, draws);
  std::uint32_t limit = rule.keep;
  if (rule.kind == Rule::Kind::kRanked) {
    decide_draws<Real>(rule, masked.tensor, masked.base, drawn.count, begin, n,
                       drawn.runs[masked.source], draws + begin % kBlock);
    limit = 1;
  }
  simd::pack_draws(draws, limit, bits);
  return bits;
}

// keep[i] = all ones if element begin + i of the task vector is kept, else 0. The run lies in one
// canonical block.
template <typename Real>
inline void rule_mask(const Masked& masked, std::int64_t begin, int n, const Real* __restrict delta,
                      Bits<Real>* __restrict keep) {
  const Rule& rule = masked.rule;
  switch (rule.kind) {
    case Rule::Kind::kKeepAll:
      for (int i = 0; i < n; ++i) keep[i] = ~Bits<Real>{0};
      break;
    case Rule::Kind::kBand:
      for_each_band<Real>(rule, begin, n, [=](int from, int to, Bits<Real> low, Bits<Real> high) {
        for (int i = from; i < to; ++i) keep[i] = band_word(delta[i], low, high);
      });
      break;
    case Rule::Kind::kBernoulli:
    case Rule::Kind::kRanked: {
      std::uint8_t space[kMaskBytes];
      alignas(64) std::uint16_t dropped[kBlock];
      simd::unpack_draws(drawn_mask<Real>(masked, begin, n, space), dropped);
      const std::uint16_t* mine = dropped + begin % kBlock;
      for (int i = 0; i < n; ++i) keep[i] = mine[i] == 0 ? ~Bits<Real>{0} : Bits<Real>{0};
      break;
    }
    case Rule::Kind::kSpread:  // looks at all tensors of a request: common/spread.h
      break;
  }
}

// out[i] = keep[i] ? in[i] : 0
template <typename Real>
inline void apply_mask(const Bits<Real>* __restrict keep, int n, Real* __restrict values) {
  for (int i = 0; i < n; ++i) values[i] = real_of<Real>(bits_of(values[i]) & keep[i]);
}

// D = X - B for a run, or X itself where there is no base (base == nullptr).
template <typename Real>
inline void decode_delta(const Operand& tensor, const Real* __restrict base, std::int64_t begin,
                         int n, Real* __restrict out) {
  decode(tensor, begin, n, out);
  if (base == nullptr) return;
  for (int i = 0; i < n; ++i) out[i] -= base[i];
}

}  // namespace
}  // namespace pymerge
