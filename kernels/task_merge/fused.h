// task_merge with every element in a register from its decoding to its sum: up to four sources of
// one 2-byte dtype or float32, masked by one kind of rule. The common merges are all of this shape;
// what is not goes through cpu.cc's loops.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/rules.h"
#include "common/vectors.h"
#include "task_merge/task_merge.h"

namespace pymerge {
namespace {

template <typename V>
class FusedMerge {
 public:
  // `draws`: room for kMost blocks of them.
  FusedMerge(const TaskMergeArgs& args, std::uint16_t* draws) : args_(args), draws_(draws) {
    if constexpr (V::kWidth > 0) choose();
  }

  // Elements [begin, begin + n) of base + S into `out`, as many as fit in whole vectors; returns
  // how many. The run lies in one canonical block.
  template <typename Real>
  int run(std::int64_t begin, int n, Real* out) {
    if constexpr (V::kWidth > 0) {
      const int whole = n / V::kWidth * V::kWidth;
      if (loop_ == nullptr || whole == 0 || !set_masks(begin, n)) return 0;
      loop_(*this, begin, whole, out);
      return whole;
    }
    return 0;
  }

 private:
  enum class Masks { kNone, kBands, kDraws };
  using Loop = void (*)(const FusedMerge&, std::int64_t, int, float*);
  static constexpr int kMost = 4;

  void choose() {
    Masks kind = Masks::kNone;
    for (int i = 0; i < args_.n; ++i) {
      const Rule& rule = args_.rules[i];
      if (keeps_nothing(rule) || rule.kind == Rule::Kind::kKeepAll) continue;
      const Masks wanted = rule.kind == Rule::Kind::kBand ? Masks::kBands : Masks::kDraws;
      if (kind != Masks::kNone && kind != wanted) return;
      kind = wanted;
    }
    // All kept needs no masks; all or nothing does.
    if (kind == Masks::kNone && std::any_of(args_.rules, args_.rules + args_.n, keeps_nothing)) {
      kind = Masks::kBands;
    }
    kind_ = kind;
    with_dtype(args_.tensors, args_.n, &args_.base, [&](auto dtype) {
      with_count<kMost>(args_.n, [&](auto count) {
        if constexpr ((1 << count()) <= V::kTable || count() == 1) {
          loop_ = args_.elect ? pick<dtype(), count(), true>() : pick<dtype(), count(), false>();
        } else {
          if (!args_.elect) loop_ = pick<dtype(), count(), false>();
        }
      });
    });
    if (args_.elect && loop_ != nullptr) make_factors();
  }

  template <DType dtype, int n, bool elect>
  Loop pick() const {
    switch (kind_) {
      case Masks::kNone:
        return &merge<dtype, n, Masks::kNone, elect>;
      case Masks::kBands:
        return &merge<dtype, n, Masks::kBands, elect>;
      default:
        return &merge<dtype, n, Masks::kDraws, elect>;
    }
  }

  static bool keeps_nothing(const Rule& rule) {
    return rule.kind == Rule::Kind::kBand && rule.outer.bits > BitsOf<float>::kQuietNan;
  }

  // scale / Z for every set of sources that may agree, by the bits of the set.
  void make_factors() {
    const float scale = static_cast<float>(args_.scale);
    for (int set = 0; set < (1 << args_.n); ++set) {
      float divisor = 0;
      for (int i = 0; i < args_.n; ++i) {
        divisor += (set >> i & 1) != 0 ? static_cast<float>(args_.weights[i]) : 0.0f;
      }
      factors_[set] = args_.normalize ? scale / (divisor == 0 ? 1.0f : divisor) : scale;
    }
  }

  // Thresholds that hold for the whole run, or false: then a cut's ties change inside it.
  bool set_masks(std::int64_t begin, int n) {
    for (int i = 0; i < args_.n && kind_ != Masks::kNone; ++i) {
      const Rule& rule = args_.rules[i];
      low_[i] = 0;
      high_[i] = kTop;
      if (kind_ == Masks::kBands && rule.kind == Rule::Kind::kBand) {
        for (const std::int64_t last : {rule.outer.last, rule.inner.last}) {
          if (last + 1 > begin && last + 1 < begin + n) return false;
        }
        low_[i] = std::min(kTop, first_inside<float>(rule.outer, begin));
        high_[i] = std::min(kTop, first_inside<float>(rule.inner, begin));
      } else if (kind_ == Masks::kDraws) {
        low_[i] = rule.kind == Rule::Kind::kKeepAll ? 0x10000u
                  : rule.kind == Rule::Kind::kBand  ? 0
                                                    : rule.keep;
        std::uint16_t* const draws = draws_ + i * kBlock;
        if (rule.kind == Rule::Kind::kBernoulli) block_draws(rule.key, begin / kBlock, draws);
        source_draws_[i] = draws + begin % kBlock;
      }
    }
    return true;
  }

  template <DType dtype, int n, Masks kind, bool elect>
  static void merge(const FusedMerge& self, std::int64_t begin, int count, float* out) {
    const TaskMergeArgs& args = self.args_;
    typename V::Real coefficients[n];
    typename V::Key low[n];
    typename V::Key high[n];
    const std::uint16_t* draws[n];
    VectorInput<V, dtype> inputs[n];
    const VectorInput<V, dtype> origin(args.base, begin);
    for (int i = 0; i < n; ++i) {
      inputs[i] = {args.tensors[i], begin};
      draws[i] = self.source_draws_[i];
      coefficients[i] = V::fill(static_cast<float>(args.coefficients[i]));
      if constexpr (kind != Masks::kNone) {
        low[i] = V::fill_key(self.low_[i]);
        high[i] = V::fill_key(self.high_[i]);
      }
    }
    for (int e = 0; e < count; e += V::kWidth) {
      const auto base = origin[e];
      typename V::Real parts[n];
      typename V::Real sum{};
      for (int i = 0; i < n; ++i) {
        auto delta = V::subtract(inputs[i][e], base);
        if constexpr (kind == Masks::kBands) {
          delta = V::keep(V::in_band(V::magnitude_key(delta), low[i], high[i]), delta);
        } else if constexpr (kind == Masks::kDraws) {
          delta = V::keep(V::drawn(draws[i] + e, low[i]), delta);
        }
        parts[i] = V::multiply(coefficients[i], delta);
        sum = i == 0 ? parts[0] : V::add(sum, parts[i]);
      }
      if constexpr (elect) {
        const auto side = V::not_negative(sum);
        auto merged = V::fill(0.0f);
        auto agreed = V::no_bits();
        for (int i = 0; i < n; ++i) {
          const auto agrees = V::agrees(parts[i], side);
          merged = V::add_if(agrees, merged, parts[i]);
          agreed = V::set_bit(agreed, agrees, i);
        }
        sum = V::multiply(merged, V::look_up(self.factors_, agreed));
      }
      V::store(out + e, V::add(base, sum));
    }
  }

  // Above every key, and still positive as a signed number, which is how vectors compare.
  static constexpr std::uint32_t kTop = 0x7fffffffu;

  const TaskMergeArgs& args_;
  std::uint16_t* const draws_;
  Masks kind_ = Masks::kNone;
  Loop loop_ = nullptr;
  // Per source. Bands: low <= key < high; draws: draw < low.
  std::uint32_t low_[kMost];
  std::uint32_t high_[kMost];
  const std::uint16_t* source_draws_[kMost];
  alignas(64) float factors_[16] = {};
};

}  // namespace
}  // namespace pymerge
