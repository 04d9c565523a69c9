// task_merge with every element in a register from its decoding to its sum: up to four sources of
// one 2-byte dtype or float32, masked by one kind of rule. The common merges are all of this shape;
// what is not goes through cpu.cc's loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/rules.h"
#include "common/spread.h"
#include "common/vectors.h"
#include "task_merge/task_merge.h"

namespace pymerge {
namespace {

inline Masked masked_source(const TaskMergeArgs& args, int i) {
  return {args.rules[i], args.tensors[i], &args.base, args.drawn, i};
}

template <typename V>
class FusedMerge {
 public:
  explicit FusedMerge(const TaskMergeArgs& args) : args_(args) {
    if constexpr (V::kWidth > 0) choose();
  }

  // Elements [begin, begin + n) of base + S into `sums`, as many as fit in whole vectors; returns
  // how many. The run lies in one canonical block.
  template <typename Real>
  int run(std::int64_t begin, int n, Real* sums) {
    if constexpr (V::kWidth > 0) {
      const int whole = n / V::kWidth * V::kWidth;
      if (loop_ == nullptr || whole == 0 || !set_masks(begin, n)) return 0;
      loop_(*this, begin, whole, sums);
      return whole;
    }
    return 0;
  }

 private:
  // Tops: bands without an inner cut. Apart: one top of how far the sources are apart.
  enum class Masks { kNone, kTops, kBands, kDraws, kApart };
  using Loop = void (*)(const FusedMerge&, std::int64_t, int, float*);
  static constexpr int kMost = 4;

  void choose() {
    if (!choose_masks()) return;
    with_dtype(args_.tensors, args_.n, &args_.base, [&](auto dtype) {
      with_count<kMost>(args_.n, [&](auto count) {
        if (args_.consensus == Consensus::kNone) {
          loop_ = pick<dtype(), count(), Consensus::kNone>();
        } else if (args_.pick) {
          const bool voted = args_.consensus == Consensus::kSum && args_.votes == nullptr;
          if (voted) loop_ = pick<dtype(), count(), Consensus::kSum, false, true>();
          if (args_.consensus == Consensus::kOverlap) {
            loop_ = pick<dtype(), count(), Consensus::kOverlap, false, true>();
          }
        } else if constexpr ((1 << count()) <= V::kTable) {
          if (args_.consensus == Consensus::kSum && args_.votes == nullptr) {
            loop_ = pick<dtype(), count(), Consensus::kSum>();
          } else if (args_.consensus == Consensus::kSum) {
            loop_ = pick<dtype(), count(), Consensus::kSum, true>();
          } else if (args_.consensus == Consensus::kCount) {
            loop_ = pick<dtype(), count(), Consensus::kCount, true>();
          } else if (args_.consensus == Consensus::kOverlap && kind_ == Masks::kTops) {
            // What a top mask keeps is not zero, unless it keeps all: see set_masks.
            loop_ = &merge<dtype(), count(), Masks::kTops, Consensus::kOverlap, false, false>;
          }
          make_factors();
        }
      });
    });
  }

  // False if the rules are of different kinds.
  bool choose_masks() {
    bool all = true;
    bool bands = false;
    bool tops = true;
    bool drawn = false;
    bool apart = true;  // all by one spread
    for (int i = 0; i < args_.n; ++i) {
      const Rule& rule = args_.rules[i];
      const Rule::Cut& first = args_.rules[0].outer;
      // A dropped element counts as +0 here, as c times 0 elsewhere.
      if (!std::isfinite(args_.coefficients[i])) return false;
      if (args_.votes != nullptr && !std::isfinite(args_.votes[i])) return false;
      apart &= rule.kind == Rule::Kind::kSpread && rule.outer.bits == first.bits &&
               rule.outer.last == first.last;
      all &= rule.kind == Rule::Kind::kKeepAll;
      drawn |= is_drawn(rule);
      bands |= rule.kind == Rule::Kind::kBand && !keeps_nothing(rule);
      tops &= rule.inner.bits > BitsOf<float>::kQuietNan;
    }
    kind_ = all     ? Masks::kNone
            : apart ? Masks::kApart
            : drawn ? Masks::kDraws
            : tops  ? Masks::kTops
                    : Masks::kBands;
    return apart || !(any_spread(args_.rules, args_.n) || (drawn && bands));
  }

  template <DType dtype, int n, Consensus consensus, bool votes = false, bool largest = false>
  Loop pick() const {
    switch (kind_) {
      case Masks::kNone:
        return &merge<dtype, n, Masks::kNone, consensus, votes, largest>;
      case Masks::kTops:
        return &merge<dtype, n, Masks::kTops, consensus, votes, largest>;
      case Masks::kBands:
        return &merge<dtype, n, Masks::kBands, consensus, votes, largest>;
      case Masks::kDraws:
        return &merge<dtype, n, Masks::kDraws, consensus, votes, largest>;
      case Masks::kApart:
        return &merge<dtype, n, Masks::kApart, consensus, votes, largest>;
    }
    return nullptr;
  }

  static bool keeps_nothing(const Rule& rule) {
    return rule.kind == Rule::Kind::kBand && rule.outer.bits > BitsOf<float>::kQuietNan;
  }

  // scale / Z for every set of sources that may agree, by the bits of the set.
  void make_factors() {
    const float scale = static_cast<float>(args_.scale);
    for (int set = 0; set < (1 << args_.n); ++set) {
      float divisor = 0;
      for (int i = 0; i < args_.n && args_.normalize; ++i) {  // else there need not be weights
        divisor += (set >> i & 1) != 0 ? static_cast<float>(args_.weights[i]) : 0.0f;
      }
      factors_[set] = args_.normalize ? scale / (divisor == 0 ? 1.0f : divisor) : scale;
      const bool single = set != 0 && (set & (set - 1)) == 0;
      if (single && args_.alone != nullptr) {
        factors_[set] = static_cast<float>(args_.alone[__builtin_ctz(set)]);
      }
    }
  }

  // Thresholds that hold for the whole run, or false: then a cut's ties change inside it.
  bool set_masks(std::int64_t begin, int n) {
    for (int i = 0; i < args_.n && kind_ != Masks::kNone; ++i) {
      const Rule& rule = args_.rules[i];
      low_[i] = 0;
      high_[i] = kLargest;
      if (kind_ != Masks::kDraws && rule.kind != Rule::Kind::kKeepAll) {
        for (const std::int64_t last : {rule.outer.last, rule.inner.last}) {
          if (last + 1 > begin && last + 1 < begin + n) return false;
        }
        low_[i] = std::min(kLargest, first_inside<float>(rule.outer, begin));
        high_[i] = std::min(kLargest, first_inside<float>(rule.inner, begin));
        // Tops compare bits, in which NaN are many: right as long as all of them are in or out.
        if (low_[i] > BitsOf<float>::kQuietNan && low_[i] < kLargest) return false;
      } else if (kind_ == Masks::kDraws) {
        masks_[i] = drawn_[i];
        if (is_drawn(rule)) {
          // Vectors take whole bytes.
          if (begin % 8 != 0) return false;
          masks_[i] = drawn_mask<float>(masked_source(args_, i), begin, n, drawn_[i]);
          masks_[i] += begin % kBlock / 8;
        } else {
          std::memset(drawn_[i], keeps_nothing(rule) ? 0 : 0xff, kMaskBytes);
        }
      }
      if (args_.consensus == Consensus::kOverlap && !args_.pick && low_[i] == 0) return false;
    }
    return true;
  }

  // `largest`: of the parts that take part; what is zero is never larger, so under kOverlap it does
  // not matter that it does not take part. `votes`: ballots are not the parts, but task vectors
  // times numbers of their own.
  template <DType dtype, int n, Masks kind, Consensus consensus, bool votes, bool largest>
  static void merge(const FusedMerge& self, std::int64_t begin, int count, float* sums) {
    constexpr bool kTop = kind == Masks::kTops || kind == Masks::kApart;
    const TaskMergeArgs& args = self.args_;
    const double* const voting = args.votes == nullptr ? args.coefficients : args.votes;
    const auto plus = V::not_negative(V::fill(1.0f));
    const auto minus = V::not_negative(V::fill(-1.0f));
    typename V::Real coefficients[n];
    typename V::Real ballot_factors[n];
    typename V::Key low[n];
    typename V::Key high[n];
    const std::uint8_t* masks[n];
    VectorInput<V, dtype> inputs[n];
    const VectorInput<V, dtype> origin(args.base, begin);
    for (int i = 0; i < n; ++i) {
      inputs[i] = {args.tensors[i], begin};
      coefficients[i] = V::fill(static_cast<float>(args.coefficients[i]));
      ballot_factors[i] = V::fill(static_cast<float>(voting[i]));
      if constexpr (kind != Masks::kNone) {
        masks[i] = self.masks_[i];
        // Tops: above the key before the first; what keeps nothing is above them all.
        low[i] =
            V::fill_key(kTop ? self.low_[i] - (self.low_[i] < kLargest ? 1u : 0u) : self.low_[i]);
        high[i] = V::fill_key(self.high_[i]);
      }
    }
    for (int e = 0; e < count; e += V::kWidth) {
      const auto base = origin[e];
      typename V::Real parts[n];
      typename V::Real ballots[n];
      typename V::Mask taking[n] = {};
      typename V::Real sum{};
      // Under kCount: votes for either side; + wins ties, hence the 1.
      auto pluses = V::fill_key(1);
      auto minuses = V::no_bits();
      typename V::Mask apart{};
      if constexpr (kind == Masks::kApart) {
        auto spread = V::fill(0.0f);
        for (int i = 0; i < n; ++i) {
          for (int j = i + 1; j < n; ++j) {
            const auto difference = V::subtract(inputs[i][e], inputs[j][e]);
            spread = V::add(spread, V::multiply(difference, difference));
          }
        }
        apart = V::above(V::magnitude_bits(spread), low[0]);
      }
      for (int i = 0; i < n; ++i) {
        const auto delta = V::subtract(inputs[i][e], base);
        typename V::Mask mask{};
        if constexpr (kind == Masks::kTops) {
          mask = V::above(V::magnitude_bits(delta), low[i]);
        } else if constexpr (kind == Masks::kBands) {
          mask = V::in_band(V::magnitude_key(delta), low[i], high[i]);
        } else if constexpr (kind == Masks::kDraws) {
          mask = V::load_mask(masks[i], e);
        } else if constexpr (kind == Masks::kApart) {
          mask = apart;
        }
        if constexpr (kind == Masks::kNone) {
          parts[i] = V::multiply(coefficients[i], delta);
        } else if constexpr (consensus != Consensus::kNone) {
          parts[i] = V::multiply_if(mask, coefficients[i], delta);
        } else {
          // Where all are dropped, the sign of zero is the coefficient's.
          parts[i] = V::multiply(coefficients[i], V::keep(mask, delta));
        }
        if constexpr (!votes) {
          ballots[i] = parts[i];
        } else if constexpr (kind == Masks::kNone) {
          ballots[i] = V::multiply(ballot_factors[i], delta);
        } else {
          ballots[i] = V::multiply_if(mask, ballot_factors[i], delta);
        }
        if constexpr (consensus == Consensus::kCount) {
          pluses = V::count_in(pluses, V::agrees(ballots[i], plus));
          minuses = V::count_in(minuses, V::agrees(ballots[i], minus));
        } else {
          sum = i == 0 ? ballots[0] : V::add(sum, ballots[i]);
        }
        if constexpr (consensus == Consensus::kOverlap) taking[i] = mask;
      }
      if constexpr (consensus != Consensus::kNone) {
        auto side = V::not_negative(sum);
        if constexpr (consensus == Consensus::kCount) side = V::above(pluses, minuses);
        auto merged = V::fill(0.0f);
        auto agreed = V::no_bits();
        for (int i = 0; i < n; ++i) {
          auto agrees = taking[i];
          if constexpr (consensus != Consensus::kOverlap) agrees = V::agrees(ballots[i], side);
          if constexpr (largest) {
            auto take = V::above(V::magnitude_bits(parts[i]), V::magnitude_bits(merged));
            if constexpr (consensus != Consensus::kOverlap) take = take & agrees;
            const auto leave = static_cast<typename V::Mask>(~take);
            merged = V::add(V::keep(leave, merged), V::keep(take, parts[i]));
          } else {
            merged = V::add_if(agrees, merged, parts[i]);
            agreed = V::set_bit(agreed, agrees, i);
          }
        }
        if constexpr (largest) {
          sum = V::multiply(merged, V::fill(static_cast<float>(args.scale)));
        } else {
          sum = V::multiply(merged, V::look_up(self.factors_, agreed));
        }
      }
      V::store(sums + e, V::add(base, sum));
    }
  }

  // Above every key, and still positive as a signed number, which is how vectors compare.
  static constexpr std::uint32_t kLargest = 0x7fffffffu;

  const TaskMergeArgs& args_;
  Masks kind_ = Masks::kNone;
  Loop loop_ = nullptr;
  // Per source. Bands: low <= key < high; draws: a bit an element, and room for what is drawn here.
  std::uint32_t low_[kMost];
  std::uint32_t high_[kMost];
  const std::uint8_t* masks_[kMost];
  std::uint8_t drawn_[kMost][kMaskBytes];
  alignas(64) float factors_[16] = {};
};

}  // namespace
}  // namespace pymerge
