// weighted_sum on the CPU. Reads every input once, writes the output once.
#include "common/chunk.h"
#include "common/lines.h"
#include "common/rules.h"
#include "common/vectors.h"
#include "weighted_sum/weighted_sum.h"

namespace pymerge {
namespace {

template <typename Real>
struct Workspace {
  alignas(64) Real sum[kBlock];
  alignas(64) Real value[kBlock];
  alignas(64) Real origin[kBlock];
};

// A run of one canonical block, the sums of up to four tensors of one dtype in registers, as far as
// whole vectors go; returns how many elements that were.
template <typename V, typename Real>
int sum_vectors(const Operand* tensors, const double* coefficients, int n, std::int64_t begin,
                int count, Real* sums) {
  int done = 0;
  if constexpr (V::kWidth > 0) {
    with_dtype(tensors, n, nullptr, [&](auto dtype) {
      with_count<4>(n, [&](auto models) {
        VectorInput<V, dtype()> inputs[models()];
        typename V::Real factors[models()];
        for (int i = 0; i < models(); ++i) {
          inputs[i] = {tensors[i], begin};
          factors[i] = V::fill(static_cast<float>(coefficients[i]));
        }
        for (; done + V::kWidth <= count; done += V::kWidth) {
          auto sum = V::multiply(factors[0], inputs[0][done]);
          for (int i = 1; i < models(); ++i) {
            sum = V::add(sum, V::multiply(factors[i], inputs[i][done]));
          }
          V::store(sums + done, sum);
        }
      });
    });
  }
  return done;
}

template <typename Real>
bool fill_as(const Operand* tensors, const double* coefficients, int n, Range range,
             DType out_dtype, void* out, Workspace<Real>* space) {
  bool bad = false;
  auto* at = static_cast<unsigned char*>(out);
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    const int done =
        sum_vectors<VectorFor<Real>>(tensors, coefficients, n, begin, count, space->sum);
    Real* __restrict sum = space->sum;
    Real* __restrict value = space->value;
    for (int i = 0; i < n && done < count; ++i) {
      decode(tensors[i], begin + done, count - done, value);
      const Real coefficient = static_cast<Real>(coefficients[i]);
      for (int e = done; e < count; ++e) {
        const Real part = coefficient * value[e - done];
        sum[e] = i == 0 ? part : sum[e] + part;
      }
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

template <typename Real>
bool fill_lines_as(const Operand* tensors, int n, const Operand* base, const double* coefficients,
                   const Lines& lines, Range range, DType out_dtype, void* out,
                   Workspace<Real>* space) {
  bool bad = false;
  auto* at = static_cast<unsigned char*>(out);
  Real* const origin = base == nullptr ? nullptr : space->origin;
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    Real* __restrict sum = space->sum;
    Real* __restrict value = space->value;
    if (origin != nullptr) decode(*base, begin, count, origin);
    for (int i = 0; i < n; ++i) {
      Real* const part = i == 0 ? space->sum : space->value;
      decode_delta(tensors[i], origin, begin, count, part);
      scale_lines(lines, coefficients + i * lines.count, begin, count, part);
      for (int e = 0; i > 0 && e < count; ++e) sum[e] += value[e];
    }
    for (int e = 0; origin != nullptr && e < count; ++e) sum[e] = origin[e] + sum[e];
    bad |= encode(space->sum, count, out_dtype, at);
    at += count * item_size(out_dtype);
  });
  return bad;
}

bool fill_lines(const Operand* tensors, int n, const Operand* base, const double* coefficients,
                const Lines& lines, Compute compute, Range range, DType out_dtype, void* out,
                void* scratch) {
  if (compute == Compute::kFloat64) {
    return fill_lines_as(tensors, n, base, coefficients, lines, range, out_dtype, out,
                         static_cast<Workspace<double>*>(scratch));
  }
  return fill_lines_as(tensors, n, base, coefficients, lines, range, out_dtype, out,
                       static_cast<Workspace<float>*>(scratch));
}

}  // namespace

PYMERGE_EXPORT(WeightedSumKernel, weighted_sum) = {fill, sizeof(Workspace<double>), fill_lines};

}  // namespace pymerge
