// How far a request's tensors are apart, and the mask that follows from it. Contract: spread.py.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/rules.h"

namespace pymerge {
namespace {

// V for a run; `left` and `right` are room for a decoded run each.
template <typename Real>
inline void spread_of(const Operand* tensors, int n, std::int64_t begin, int count,
                      Real* __restrict left, Real* __restrict right, Real* __restrict out) {
  std::fill(out, out + count, Real{0});
  for (int i = 0; i < n; ++i) {
    decode(tensors[i], begin, count, left);
    for (int j = i + 1; j < n; ++j) {
      decode(tensors[j], begin, count, right);
      for (int e = 0; e < count; ++e) {
        const Real apart = left[e] - right[e];
        out[e] += apart * apart;
      }
    }
  }
}

inline bool any_spread(const Rule* rules, int n) {
  return std::any_of(rules, rules + n,
                     [](const Rule& rule) { return rule.kind == Rule::Kind::kSpread; });
}

// rule_mask for every kind of rule; `spread` is V, read only by kSpread.
template <typename Real>
[[gnu::noinline]] void mask_of(const Masked& masked, std::int64_t begin, int n,
                               const Real* __restrict delta, const Real* __restrict spread,
                               Bits<Real>* __restrict keep) {
  if (masked.rule.kind != Rule::Kind::kSpread) return rule_mask(masked, begin, n, delta, keep);
  Rule band = masked.rule;
  band.kind = Rule::Kind::kBand;
  rule_mask(Masked{band, masked.tensor, masked.base}, begin, n, spread, keep);
}

}  // namespace
}  // namespace pymerge
