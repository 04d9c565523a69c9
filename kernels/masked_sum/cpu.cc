// masked_sum on the CPU. Reads every input once.
#include "common/lanes.h"
#include "common/rules.h"
#include "masked_sum/masked_sum.h"

namespace pymerge {
namespace {

template <typename Real>
struct Workspace {
  alignas(64) Real base[kBlock];
  alignas(64) Real delta[kBlock];
  alignas(64) Bits<Real> keep[kBlock];
};

// Sums of one block's magnitudes, all and kept; both arrays padded with zeros to kBlock.
template <typename Real>
void add_block(const Real* delta, const Bits<Real>* keep, MaskedTotals& totals) {
  constexpr Bits<Real> kMagnitude = static_cast<Bits<Real>>(~Bits<Real>{0} >> 1);
  alignas(64) Real kept[kBlock];
  alignas(64) Real all[kBlock];
  for (int e = 0; e < kBlock; ++e) {
    const Bits<Real> magnitude = bits_of(delta[e]) & kMagnitude;
    all[e] = real_of<Real>(magnitude);
    kept[e] = real_of<Real>(magnitude & keep[e]);
  }
  totals.total += block_sum<double>([&all](int k) { return Lanes<double>::load(all + k); });
  totals.kept += block_sum<double>([&kept](int k) { return Lanes<double>::load(kept + k); });
}

template <typename Real>
void add_as(const Operand* tensors, const Rule* rules, int n, const Operand* base, Range range,
            MaskedTotals* totals, Workspace<Real>* space) {
  const Real* origin = base == nullptr ? nullptr : space->base;
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    if (base != nullptr) decode(*base, begin, count, space->base);
    for (int i = 0; i < n; ++i) {
      Real* __restrict delta = space->delta;
      Bits<Real>* __restrict keep = space->keep;
      decode_delta(tensors[i], origin, begin, count, delta);
      rule_mask(rules[i], begin, count, delta, keep);
      for (int e = count; e < kBlock; ++e) {
        delta[e] = 0;
        keep[e] = 0;
      }
      add_block(delta, keep, totals[i]);
      Bits<Real> ones = 0;
      for (int e = 0; e < kBlock; ++e) ones += keep[e] & 1u;
      totals[i].count += static_cast<std::int64_t>(ones);
    }
  });
}

void add(const Operand* tensors, const Rule* rules, int n, const Operand* base, Compute compute,
         Range range, MaskedTotals* totals, void* scratch) {
  if (compute == Compute::kFloat64) {
    add_as(tensors, rules, n, base, range, totals, static_cast<Workspace<double>*>(scratch));
  } else {
    add_as(tensors, rules, n, base, range, totals, static_cast<Workspace<float>*>(scratch));
  }
}

}  // namespace

PYMERGE_EXPORT(MaskedSumKernel, masked_sum) = {add, sizeof(Workspace<double>)};

}  // namespace pymerge
