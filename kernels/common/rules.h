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

inline std::uint32_t draw_limit(const Rule& rule) {
  return rule.kind == Rule::Kind::kRanked ? 1 : rule.keep;
}

// Bytes of a canonical block's mask, one bit an element.
inline constexpr int kMaskBytes = kBlock / 8;

// What is kept of the mask of the block that element `begin` lies in, or null.
inline std::uint8_t* kept_mask(const Masked& masked, std::int64_t begin) {
  if (masked.drawn.masks == nullptr) return nullptr;
  std::uint8_t* const mask = masked.drawn.masks[masked.source];
  return mask == nullptr ? nullptr : mask + begin / kBlock * kMaskBytes;
}

// The draws of a run that lies in one canonical block, in `draws` (room for kBlock): where that of
// its first element is. Elements are kept whose draw is below draw_limit().
template <typename Real>
inline const std::uint16_t* rule_draws(const Masked& masked, std::int64_t begin, int n,
                                       std::uint16_t* draws) {
  const Rule& rule = masked.rule;
  const Drawn& drawn = masked.drawn;
  std::uint16_t* const mine = draws + begin % kBlock;
  std::uint8_t* const bits = kept_mask(masked, begin);
  if (bits != nullptr && drawn.known) {
    simd::unpack_draws(bits, draws);
    return mine;
  }
  block_draws(rule.key, begin / kBlock, draws);
  if (rule.kind == Rule::Kind::kRanked) {
    decide_draws<Real>(rule, masked.tensor, masked.base, drawn.count, begin, n,
                       drawn.runs[masked.source], mine);
  }
  if (bits != nullptr) simd::pack_draws(draws, draw_limit(rule), bits);
  return mine;
}

// The mask of that block, set where an element of the run is kept; in `space` (kMaskBytes) if
// nothing of it is kept.
template <typename Real>
inline const std::uint8_t* drawn_mask(const Masked& masked, std::int64_t begin, int n,
                                      std::uint8_t* space) {
  std::uint8_t* const bits = kept_mask(masked, begin);
  if (bits != nullptr && masked.drawn.known) return bits;
  alignas(64) std::uint16_t draws[kBlock];
  rule_draws<Real>(masked, begin, n, draws);
  if (bits != nullptr) return bits;
  simd::pack_draws(draws, draw_limit(masked.rule), space);
  return space;
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
      alignas(64) std::uint16_t draws[kBlock];
      const std::uint16_t* mine = rule_draws<Real>(masked, begin, n, draws);
      const std::uint32_t limit = draw_limit(rule);
      for (int i = 0; i < n; ++i) keep[i] = mine[i] < limit ? ~Bits<Real>{0} : Bits<Real>{0};
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
