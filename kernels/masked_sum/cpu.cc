// masked_sum on the CPU. Reads every input once.
#include "common/lanes.h"
#include "common/rules.h"
#include "common/spread.h"
#include "common/vectors.h"
#include "masked_sum/masked_sum.h"

namespace pymerge {
namespace {

template <typename Real>
struct Workspace {
  alignas(64) Real base[kBlock];
  alignas(64) Real delta[kBlock];
  alignas(64) Bits<Real> keep[kBlock];
  alignas(64) Real spread[kBlock];
};

// The largest of a block's magnitudes and `so_far`; a NaN is larger than all.
template <typename Real>
double largest(const Real* magnitudes, double so_far) {
  for (int e = 0; e < kBlock; ++e) {
    const double magnitude = magnitudes[e];
    if (magnitude > so_far || magnitude != magnitude) so_far = magnitude;
  }
  return so_far;
}

// Adds one block's norm terms, all and kept; both arrays padded with zeros to kBlock.
template <typename Real>
void add_block(const Real* delta, const Bits<Real>* keep, Norm norm, MaskedTotals& totals) {
  constexpr Bits<Real> kMagnitude = static_cast<Bits<Real>>(~Bits<Real>{0} >> 1);
  alignas(64) Real kept[kBlock];
  alignas(64) Real all[kBlock];
  for (int e = 0; e < kBlock; ++e) {
    const Bits<Real> magnitude = bits_of(delta[e]) & kMagnitude;
    all[e] = real_of<Real>(magnitude);
    kept[e] = real_of<Real>(magnitude & keep[e]);
  }
  const auto sum = [](const Real* terms) {
    return block_sum<double>([=](int k) { return Lanes<double>::load(terms + k); });
  };
  const auto sum_squares = [](const Real* terms) {
    return block_sum<double>([=](int k) {
      const auto term = Lanes<double>::load(terms + k);
      return term * term;
    });
  };
  switch (norm) {
    case Norm::kL1:
      totals.total += sum(all);
      totals.kept += sum(kept);
      break;
    case Norm::kL2:
      totals.total += sum_squares(all);
      totals.kept += sum_squares(kept);
      break;
    case Norm::kMax:
      totals.total = largest(all, totals.total);
      totals.kept = largest(kept, totals.kept);
      break;
  }
}

// How a vector's magnitudes are added up in float64: in halves, converted; or even and odd lanes
// apart, scaled, which is cheaper and right for finite ones. store: two sums, as kWidth lanes.
template <typename V>
struct Converted {
  static auto make(typename V::Real delta) { return V::magnitude(delta); }
  static auto first(typename V::Real magnitude) { return V::widen_low(magnitude); }
  static auto second(typename V::Real magnitude) { return V::widen_high(magnitude); }
  static void store(double* lanes, typename V::Wide first, typename V::Wide second) {
    V::store(lanes, first);
    V::store(lanes + V::kWide, second);
  }
};
template <typename V>
struct Scaled {
  static auto make(typename V::Real delta) { return delta; }
  static auto first(typename V::Real x) { return V::scaled_even(x); }
  static auto second(typename V::Real x) { return V::scaled_odd(x); }
  static void store(double* lanes, typename V::Wide first, typename V::Wide second) {
    double apart[2][V::kWide];
    V::store(apart[0], first);
    V::store(apart[1], second);
    for (int i = 0; i < V::kWidth; ++i) lanes[i] = apart[i % 2][i / 2] * 0x1p896;
  }
};

// A whole block of a task vector, a vector's width of lanes at a time, so that all sums stay in
// registers. mask_at(k, delta): the mask of the vector from element k on. L1 or L2.
template <typename V, DType dtype, Norm norm, template <typename> typename Terms, typename MaskAt>
MaskedTotals sum_block(const Operand& tensor, const Operand& base, std::int64_t begin,
                       const MaskAt& mask_at) {
  double all[kLanes];
  double kept[kLanes];
  auto ones = V::no_bits();
  const VectorInput<V, dtype> input(tensor, begin);
  const VectorInput<V, dtype> origin(base, begin);
  const auto add = [](typename V::Wide sum, typename V::Wide term) {
    // Exact products: FMA rounds as an addition does.
    return norm == Norm::kL2 ? V::add_product(term, term, sum) : V::add(sum, term);
  };
  for (int lane = 0; lane < kLanes; lane += V::kWidth) {
    typename V::Wide sums[4] = {};
    for (int k = lane; k < kBlock; k += kLanes) {
      const auto delta = V::subtract(input[k], origin[k]);
      const auto mask = mask_at(k, delta);
      const auto term = Terms<V>::make(delta);
      const auto masked = V::keep(mask, term);
      ones = V::count_in(ones, mask);
      sums[0] = add(sums[0], Terms<V>::first(term));
      sums[1] = add(sums[1], Terms<V>::second(term));
      sums[2] = add(sums[2], Terms<V>::first(masked));
      sums[3] = add(sums[3], Terms<V>::second(masked));
    }
    Terms<V>::store(all + lane, sums[0], sums[1]);
    Terms<V>::store(kept + lane, sums[2], sums[3]);
  }
  return {tree_sum(all), tree_sum(kept), V::total(ones)};
}

template <typename V, DType dtype, Norm norm, typename MaskAt>
void add_block_vectors(const Operand& tensor, const Operand& base, std::int64_t begin,
                       MaskedTotals& totals, const MaskAt& mask_at) {
  MaskedTotals block{};
  bool done = false;
  if constexpr (norm == Norm::kL1) {
    block = sum_block<V, dtype, norm, Scaled>(tensor, base, begin, mask_at);
    // Infinity and NaN are at least this when they are scaled: what is less had none.
    done = block.total < 0x1p128;
  }
  if (!done) block = sum_block<V, dtype, norm, Converted>(tensor, base, begin, mask_at);
  totals.total += block.total;
  totals.kept += block.kept;
  totals.count += block.count;
}

// The same under a rule that draws.
template <typename V, DType dtype, Norm norm>
void add_block_drawn(const Masked& masked, std::int64_t begin, MaskedTotals& totals) {
  std::uint8_t space[kMaskBytes];
  const std::uint8_t* const mask = drawn_mask<float>(masked, begin, kBlock, space);
  add_block_vectors<V, dtype, norm>(masked.tensor, *masked.base, begin, totals,
                                    [=](int k, auto) { return V::load_mask(mask, k); });
}

// And under a mask of words.
template <typename V, DType dtype, Norm norm>
void add_block_kept(const Masked& masked, const std::uint32_t* keep, std::int64_t begin,
                    MaskedTotals& totals) {
  const auto ones = V::fill_key(~0u);
  add_block_vectors<V, dtype, norm>(masked.tensor, *masked.base, begin, totals, [&](int k, auto) {
    return V::equal(V::load_keys(keep + k), ones);
  });
}

// Whether a band is the same for all of a block: no cut's last tie lies in it.
bool is_constant(const Rule& rule, std::int64_t begin) {
  const auto inside = [=](std::int64_t last) {
    return last + 1 > begin && last + 1 < begin + kBlock;
  };
  return !inside(rule.outer.last) && !inside(rule.inner.last);
}

// And under a band that is.
template <typename V, DType dtype, Norm norm>
void add_block_band(const Masked& masked, std::int64_t begin, MaskedTotals& totals) {
  // Keys compare as signed numbers.
  constexpr std::uint32_t kLargest = 0x7fffffffu;
  const Rule& rule = masked.rule;
  const auto low = V::fill_key(std::min(kLargest, first_inside<float>(rule.outer, begin)));
  const auto high = V::fill_key(std::min(kLargest, first_inside<float>(rule.inner, begin)));
  add_block_vectors<V, dtype, norm>(
      masked.tensor, *masked.base, begin, totals,
      [&](int, auto delta) { return V::in_band(V::magnitude_key(delta), low, high); });
}

// Whole blocks of `range`, where vectors serve; returns how many elements that were.
template <typename V, typename Real>
std::int64_t add_vectors(const Operand* tensors, const Rule* rules, int n, const Operand* base,
                         const Drawn& drawn, Norm norm, Range range, MaskedTotals* totals,
                         Workspace<Real>* space) {
  std::int64_t done = 0;
  if constexpr (V::kWidth > 0) {
    const auto all = [=](auto... kinds) {
      return std::all_of(rules, rules + n,
                         [=](const Rule& rule) { return ((rule.kind == kinds) || ...); });
    };
    const bool random = all(Rule::Kind::kBernoulli, Rule::Kind::kRanked);
    const bool other = all(Rule::Kind::kSpread, Rule::Kind::kKeepAll, Rule::Kind::kBand);
    if (base == nullptr || norm == Norm::kMax || !(random || other)) return 0;
    with_dtype(tensors, n, base, [&](auto dtype) {
      const auto add_drawn = norm == Norm::kL1 ? &add_block_drawn<V, dtype(), Norm::kL1>
                                               : &add_block_drawn<V, dtype(), Norm::kL2>;
      const auto add_kept = norm == Norm::kL1 ? &add_block_kept<V, dtype(), Norm::kL1>
                                              : &add_block_kept<V, dtype(), Norm::kL2>;
      const auto add_band = norm == Norm::kL1 ? &add_block_band<V, dtype(), Norm::kL1>
                                              : &add_block_band<V, dtype(), Norm::kL2>;
      for (; done + kBlock <= range.count; done += kBlock) {
        const std::int64_t begin = range.begin + done;
        if (any_spread(rules, n)) {
          spread_of(tensors, n, begin, kBlock, space->base, space->delta, space->spread);
        }
        for (int i = 0; i < n; ++i) {
          const Masked masked{rules[i], tensors[i], base, drawn, i};
          if (random) {
            add_drawn(masked, begin, totals[i]);
            continue;
          }
          // Only bands look at the task vector.
          if (rules[i].kind == Rule::Kind::kBand) {
            if (is_constant(rules[i], begin)) {
              add_band(masked, begin, totals[i]);
              continue;
            }
            decode(*base, begin, kBlock, space->base);
            decode_delta<Real>(tensors[i], space->base, begin, kBlock, space->delta);
          }
          mask_of(masked, begin, kBlock, space->delta, space->spread, space->keep);
          add_kept(masked, space->keep, begin, totals[i]);
        }
      }
    });
  }
  return done;
}

template <typename Real>
void add_as(const Operand* tensors, const Rule* rules, int n, const Operand* base,
            const Drawn& drawn, Norm norm, Range range, MaskedTotals* totals,
            Workspace<Real>* space) {
  const Real* origin = base == nullptr ? nullptr : space->base;
  const std::int64_t done =
      add_vectors<VectorFor<Real>>(tensors, rules, n, base, drawn, norm, range, totals, space);
  range = {range.begin + done, range.count - done};
  const bool apart = any_spread(rules, n);
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    if (apart) {
      spread_of(tensors, n, begin, count, space->base, space->delta, space->spread);
    }
    if (base != nullptr) decode(*base, begin, count, space->base);
    for (int i = 0; i < n; ++i) {
      Real* __restrict delta = space->delta;
      Bits<Real>* __restrict keep = space->keep;
      decode_delta(tensors[i], origin, begin, count, delta);
      const Masked masked{rules[i], tensors[i], base, drawn, i};
      mask_of(masked, begin, count, delta, space->spread, keep);
      for (int e = count; e < kBlock; ++e) {
        delta[e] = 0;
        keep[e] = 0;
      }
      add_block(delta, keep, norm, totals[i]);
      Bits<Real> ones = 0;
      for (int e = 0; e < kBlock; ++e) ones += keep[e] & 1u;
      totals[i].count += static_cast<std::int64_t>(ones);
    }
  });
}

void add(const Operand* tensors, const Rule* rules, int n, const Operand* base, const Drawn& drawn,
         Norm norm, Compute compute, Range range, MaskedTotals* totals, void* scratch) {
  if (compute == Compute::kFloat64) {
    add_as(tensors, rules, n, base, drawn, norm, range, totals,
           static_cast<Workspace<double>*>(scratch));
  } else {
    add_as(tensors, rules, n, base, drawn, norm, range, totals,
           static_cast<Workspace<float>*>(scratch));
  }
}

}  // namespace

PYMERGE_EXPORT(MaskedSumKernel, masked_sum) = {add, sizeof(Workspace<double>)};

}  // namespace pymerge
