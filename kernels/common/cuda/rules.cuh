// Mask rules: mask/spec.py's contract for a few elements in registers; a mask is a bit an element.
#pragma once

#include <algorithm>
#include <limits>

#include "common/cuda/units.cuh"

namespace pymerge::cuda {

// Magnitudes' bit patterns, which as signed numbers order alike.
template <typename Real>
using Key = std::conditional_t<std::is_same_v<Real, double>, std::int64_t, std::int32_t>;

// What lies inside: keys above `bits`, and those equal up to element `last`.
template <typename Real>
struct KeyCut {
  Key<Real> bits;
  std::int64_t last;
};

template <typename Real>
struct MaskRule {
  enum class Kind : std::uint8_t { kAll, kBand, kSpread, kDrawn, kKnown };
  Kind kind = Kind::kAll;
  bool has_inner = false;
  std::uint32_t limit = 0;              // kDrawn: probability x 2^32
  std::uint64_t key = 0;                // kDrawn
  KeyCut<Real> outer{};                 // kBand, kSpread: inside this
  KeyCut<Real> inner{};                 // kBand: and not inside this, if there is one
  const std::uint8_t* known = nullptr;  // kKnown: a bit an element (ranks.h)
};

template <typename Real>
KeyCut<Real> to_device(const Rule::Cut& cut) {
  // No key is as large, so such a cut holds nothing.
  constexpr auto kTop = static_cast<std::uint64_t>(std::numeric_limits<Key<Real>>::max());
  return {static_cast<Key<Real>>(std::min(cut.bits, kTop)), cut.last};
}

// `known`: the bits of a rule that goes by rank.
template <typename Real>
MaskRule<Real> to_device(const Rule& rule, const std::uint32_t* known) {
  using Kind = typename MaskRule<Real>::Kind;
  MaskRule<Real> made;
  made.outer = to_device<Real>(rule.outer);
  switch (rule.kind) {
    case Rule::Kind::kKeepAll:
      break;
    case Rule::Kind::kBand:
      made.kind = Kind::kBand;
      made.inner = to_device<Real>(rule.inner);
      made.has_inner = made.inner.bits != std::numeric_limits<Key<Real>>::max();
      break;
    case Rule::Kind::kBernoulli:
      if (rule.keep == 0) {  // all or nothing takes no draw, and fits no limit
        made.kind = Kind::kBand;
        made.outer = to_device<Real>(Rule::Cut{~0ull, -1});
      } else if (rule.keep < 1u << 16) {
        made.kind = Kind::kDrawn;
        made.limit = rule.keep << 16;
        made.key = rule.key;
      }
      break;
    case Rule::Kind::kSpread:
      made.kind = Kind::kSpread;
      break;
    case Rule::Kind::kRanked:
      made.kind = Kind::kKnown;
      made.known = reinterpret_cast<const std::uint8_t*>(known);
      break;
  }
  return made;
}

// Those of all models; `known` gives the bits of rules that go by rank.
template <typename Real, typename Known>
std::vector<MaskRule<Real>> to_device(const std::vector<Rule>& rules, const Known& known) {
  std::vector<MaskRule<Real>> made;
  for (std::size_t model = 0; model < rules.size(); ++model) {
    made.push_back(to_device<Real>(rules[model], known[model]));
  }
  return made;
}

// Whether kernels have to work draws out; those of ranks are known.
inline bool any_drawn(const std::vector<Rule>& rules) {
  return std::any_of(rules.begin(), rules.end(),
                     [](const Rule& rule) { return rule.kind == Rule::Kind::kBernoulli; });
}
inline bool any_spread(const std::vector<Rule>& rules) {
  return std::any_of(rules.begin(), rules.end(),
                     [](const Rule& rule) { return rule.kind == Rule::Kind::kSpread; });
}

// The key of what was calculated: any NaN of it is quiet, so none is less than the canonical one.
__device__ __forceinline__ std::int32_t calculated_key(float value) {
  const auto key = static_cast<std::int32_t>(__float_as_uint(value) & 0x7fffffffu);
  return key < 0x7fc00000 ? key : 0x7fc00000;
}
__device__ __forceinline__ std::int64_t calculated_key(double value) {
  const std::int64_t key = __double_as_longlong(value) & 0x7fffffffffffffff;
  return key < 0x7ff8000000000000 ? key : 0x7ff8000000000000;
}

template <bool calculated, typename Real>
__device__ __forceinline__ Key<Real> rule_key(Real value) {
  return calculated ? calculated_key(value) : static_cast<Key<Real>>(key_of(value));
}

// Which of n keys, of elements from `at` on, are inside.
template <int n, typename Real>
__device__ __forceinline__ unsigned inside_cut(const Key<Real> (&keys)[n], const KeyCut<Real>& cut,
                                               std::int64_t at) {
  const std::int64_t reach = cut.last - at;
  // Ties are one more threshold for all, but where the last one lies among these.
  const Key<Real> below = cut.bits - (reach >= 0 ? 1 : 0);
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < n; ++i) {
    if (keys[i] > below) bits |= 1u << i;
  }
  if (reach >= 0 && reach < n - 1) {
#pragma unroll
    for (int i = 1; i < n; ++i) {
      if (i > reach && keys[i] == cut.bits) bits &= ~(1u << i);
    }
  }
  return bits;
}

// Which of n elements from `at` on are kept. `delta` is calculated, or as it was read; `apart` how
// far tensors are apart, for rules that go by it; draw() gives the bits where rules draw.
template <bool calculated, int n, typename Real, typename Draw>
__device__ __forceinline__ unsigned keeps(const MaskRule<Real>& rule, const Real (&delta)[n],
                                          const Real* apart, std::int64_t at, const Draw& draw) {
  using Kind = typename MaskRule<Real>::Kind;
  if (rule.kind == Kind::kAll) return (1u << n) - 1;
  if (rule.kind == Kind::kDrawn) return draw();
  if (rule.kind == Kind::kKnown) {
    const unsigned byte = __ldg(rule.known + at / 8);
    return n == 1 ? byte >> (at % 8) & 1u : byte;
  }
  Key<Real> keys[n];
#pragma unroll
  for (int i = 0; i < n; ++i) {
    keys[i] =
        rule.kind == Kind::kSpread ? rule_key<true>(apart[i]) : rule_key<calculated>(delta[i]);
  }
  const unsigned outer = inside_cut<n, Real>(keys, rule.outer, at);
  return rule.has_inner ? outer & ~inside_cut<n, Real>(keys, rule.inner, at) : outer;
}

// One element's draw, as a bit.
template <typename Real>
__device__ __forceinline__ unsigned draw_bit(const MaskRule<Real>& rule, std::int64_t at) {
  return draw_of(at, rule.key) << 16 < rule.limit ? 1 : 0;
}

// How far n elements of all tensors are apart (spread.py).
template <typename Format, int n>
__device__ __forceinline__ void spread_of(const Table<Source>& tensors, int count, std::int64_t at,
                                          typename Format::Real (&apart)[n]) {
  using Real = typename Format::Real;
#pragma unroll
  for (int i = 0; i < n; ++i) apart[i] = 0;
#pragma unroll 1
  for (int left = 0; left < count; ++left) {
    Real values[n];
    Format::template decode<n>(Format::template load<n>(tensors[left], at), values);
#pragma unroll 1
    for (int right = left + 1; right < count; ++right) {
      Real others[n];
      Format::template decode<n>(Format::template load<n>(tensors[right], at), others);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        const Real difference = values[i] - others[i];
        apart[i] = apart[i] + difference * difference;
      }
    }
  }
}

// What is drawn for the threads' units: in shared memory, each in its thread's own column, and of
// models beyond those that fit there worked out again for every vector.
inline constexpr int kDrawnModels = 40;

inline std::size_t drawn_bytes(const std::vector<Rule>& rules) {
  const auto models = std::min(rules.size(), static_cast<std::size_t>(kDrawnModels));
  return any_drawn(rules) ? models * 2 * kUnitThreads * sizeof(std::uint32_t) : 0;
}

template <int models, typename Real>
class UnitDraws {
 public:
  // models: 0 for any number. rule(i) gives that of model i.
  template <typename RuleOf>
  __device__ __forceinline__ UnitDraws(std::uint32_t* words, int n, std::uint64_t counter,
                                       const RuleOf& rule)
      : words_(words), counter_(counter) {
#pragma unroll 1
    for (int i = 0; i < n && i < kDrawnModels; ++i) {
      if (rule(i).kind != MaskRule<Real>::Kind::kDrawn) continue;
      const uint2 bits = draw_bits(counter, rule(i).key, rule(i).limit);
      words[2 * i * kUnitThreads + threadIdx.x] = bits.x;
      words[(2 * i + 1) * kUnitThreads + threadIdx.x] = bits.y;
    }
  }

  // Of model i's vector in this slab.
  __device__ __forceinline__ unsigned bits(const MaskRule<Real>& rule, int i, int slab) const {
    if (models == 0 && i >= kDrawnModels) {
      const uint2 bits = draw_bits(counter_, rule.key, rule.limit);
      return (slab < 4 ? bits.x : bits.y) >> (slab % 4 * 8) & 0xffu;
    }
    return words_[(2 * i + slab / 4) * kUnitThreads + threadIdx.x] >> (slab % 4 * 8) & 0xffu;
  }

 private:
  std::uint32_t* words_;
  std::uint64_t counter_;
};

}  // namespace pymerge::cuda
