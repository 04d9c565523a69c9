// near_swap on the CPU. Reads both inputs once, writes the output once.
#include "common/chunk.h"
#include "near_swap/near_swap.h"

namespace pymerge {
namespace {

template <typename Real>
struct Workspace {
  alignas(64) Real base[kBlock];
  alignas(64) Real value[kBlock];
};

template <typename Real>
bool fill_as(const Operand& tensor, const Operand& base, double t, Range range, DType out_dtype,
             void* out, void* scratch) {
  auto* space = static_cast<Workspace<Real>*>(scratch);
  const Real reach = static_cast<Real>(t);
  const Real least = static_cast<Real>(1e-6);
  bool bad = false;
  auto* at = static_cast<unsigned char*>(out);
  for_each_chunk(range, [&](std::int64_t begin, int n) {
    decode(base, begin, n, space->base);
    decode(tensor, begin, n, space->value);
    const Real* __restrict origin = space->base;
    Real* __restrict value = space->value;
    for (int e = 0; e < n; ++e) {
      const Real delta = value[e] - origin[e];
      const Real distance = delta < 0 ? -delta : delta;
      const Real share = reach / (distance < least ? least : distance);
      // Not "share < 1": NaN must come out of the sum.
      const Real moved = origin[e] + share * delta;
      value[e] = share >= 1 ? value[e] : moved;
    }
    bad |= encode(space->value, n, out_dtype, at);
    at += n * item_size(out_dtype);
  });
  return bad;
}

bool fill(const Operand& tensor, const Operand& base, double t, Compute compute, Range range,
          DType out_dtype, void* out, void* scratch) {
  return compute == Compute::kFloat64
             ? fill_as<double>(tensor, base, t, range, out_dtype, out, scratch)
             : fill_as<float>(tensor, base, t, range, out_dtype, out, scratch);
}

}  // namespace

PYMERGE_EXPORT(NearSwapKernel, near_swap) = {fill, sizeof(Workspace<double>)};

}  // namespace pymerge
