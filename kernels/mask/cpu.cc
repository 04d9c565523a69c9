// mask on the CPU: the rules of common/rules.h, stored instead of used.
#include "common/rules.h"
#include "mask/mask.h"

namespace pymerge {
namespace {

template <typename Real>
struct Workspace {
  Real delta[kBlock];
  Bits<Real> keep[kBlock];
};

template <typename Real>
void fill_as(const Operand& delta, const Rule& rule, const Drawn& drawn, Range range,
             std::int8_t* mask, Workspace<Real>* space) {
  const Masked masked{rule, delta, nullptr, drawn};
  for_each_chunk(range, [&](std::int64_t begin, int n) {
    decode(delta, begin, n, space->delta);
    rule_mask(masked, begin, n, space->delta, space->keep);
    for (int e = 0; e < n; ++e) mask[e] = static_cast<std::int8_t>(space->keep[e] & 1u);
    mask += n;
  });
}

void fill(const Operand& delta, const Rule& rule, const Drawn& drawn, Compute compute, Range range,
          std::int8_t* mask, void* scratch) {
  compute == Compute::kFloat64
      ? fill_as(delta, rule, drawn, range, mask, static_cast<Workspace<double>*>(scratch))
      : fill_as(delta, rule, drawn, range, mask, static_cast<Workspace<float>*>(scratch));
}

}  // namespace

PYMERGE_EXPORT(MaskKernel, mask) = {fill, sizeof(Workspace<double>)};

}  // namespace pymerge
