// overlap on the CPU. Reads every input once.
#include "common/rules.h"
#include "common/spread.h"
#include "overlap/overlap.h"

namespace pymerge {
namespace {

// base, delta, together, spread, then one array of words a source; each kBlock long.
template <typename Real>
struct Workspace {
  explicit Workspace(void* scratch)
      : base(static_cast<Real*>(scratch)),
        delta(base + kBlock),
        together(reinterpret_cast<Bits<Real>*>(base + 2 * kBlock)),
        spread(base + 3 * kBlock),
        changes(together + 2 * kBlock) {}

  Real* base;
  Real* delta;
  Bits<Real>* together;
  Real* spread;
  Bits<Real>* changes;
};

template <typename Real>
void add_as(const Operand* tensors, const Rule* rules, int n, const Operand* base,
            const Drawn& drawn, Range range, OverlapCounts* counts, void* scratch) {
  const Workspace<Real> space(scratch);
  const Real* origin = base == nullptr ? nullptr : space.base;
  const bool apart = any_spread(rules, n);
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    Bits<Real>* __restrict together = space.together;
    if (apart) spread_of(tensors, n, begin, count, space.base, space.delta, space.spread);
    if (base != nullptr) decode(*base, begin, count, space.base);
    for (int i = 0; i < n; ++i) {
      const Real* __restrict delta = space.delta;
      Bits<Real>* __restrict changes = space.changes + i * kBlock;
      decode_delta(tensors[i], origin, begin, count, space.delta);
      const Masked masked{rules[i], tensors[i], base, drawn, i};
      mask_of(masked, begin, count, delta, space.spread, changes);
      for (int e = 0; e < count; ++e) {
        changes[e] &= delta[e] == 0 ? Bits<Real>{0} : Bits<Real>{1};
        together[e] = (i == 0 ? Bits<Real>{0} : together[e]) + changes[e];
      }
    }
    for (int i = 0; i < n; ++i) {
      const Bits<Real>* __restrict changes = space.changes + i * kBlock;
      Bits<Real> all = 0;
      Bits<Real> alone = 0;
      for (int e = 0; e < count; ++e) {
        all += changes[e];
        alone += together[e] == 1 ? changes[e] : Bits<Real>{0};
      }
      counts[i].alone += static_cast<std::int64_t>(alone);
      counts[i].shared += static_cast<std::int64_t>(all - alone);
    }
  });
}

void add(const Operand* tensors, const Rule* rules, int n, const Operand* base, const Drawn& drawn,
         Compute compute, Range range, OverlapCounts* counts, void* scratch) {
  if (compute == Compute::kFloat64) {
    add_as<double>(tensors, rules, n, base, drawn, range, counts, scratch);
  } else {
    add_as<float>(tensors, rules, n, base, drawn, range, counts, scratch);
  }
}

std::size_t scratch_bytes(int n) {
  return static_cast<std::size_t>(n + 4) * kBlock * sizeof(double);
}

}  // namespace

PYMERGE_EXPORT(OverlapKernel, overlap) = {add, scratch_bytes};

}  // namespace pymerge
