// weighted_sum on the CPU. Reads every input once, writes the output once.
#include "common/chunk.h"
#include "weighted_sum/weighted_sum.h"

namespace pymerge {
namespace {

template <typename Real>
struct Workspace {
  alignas(64) Real sum[kBlock];
  alignas(64) Real value[kBlock];
};

template <typename Real>
bool fill_as(const Operand* tensors, const double* coefficients, int n, Range range,
             DType out_dtype, void* out, Workspace<Real>* space) {
  bool bad = false;
  auto* at = static_cast<unsigned char*>(out);
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    Real* __restrict sum = space->sum;
    Real* __restrict value = space->value;
    decode(tensors[0], begin, count, value);
    const Real first = static_cast<Real>(coefficients[0]);
    for (int e = 0; e < count; ++e) sum[e] = first * value[e];
    for (int i = 1; i < n; ++i) {
      decode(tensors[i], begin, count, value);
      const Real coefficient = static_cast<Real>(coefficients[i]);
      for (int e = 0; e < count; ++e) sum[e] += coefficient * value[e];
    }
    bad |= encode(sum, count, out_dtype, at);
    at += count * item_size(out_dtype);
  });
  return bad;
}

bool fill(const Operand* tensors, const double* coefficients, int n, Compute compute, Range range,
          DType out_dtype, void* out, void* scratch) {
  if (compute == Compute::kFloat64) {
    return fill_as(tensors, coefficients, n, range, out_dtype, out,
                   static_cast<Workspace<double>*>(scratch));
  }
  return fill_as(tensors, coefficients, n, range, out_dtype, out,
                 static_cast<Workspace<float>*>(scratch));
}

}  // namespace

PYMERGE_EXPORT(WeightedSumKernel, weighted_sum) = {fill, sizeof(Workspace<double>)};

}  // namespace pymerge
