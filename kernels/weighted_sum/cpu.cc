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

// Lines shorter than this are not worth their own loop over vectors.
constexpr std::int64_t kShort = 32;

// Elements [begin, begin + count) around `base`, if that is not null, in registers as far as whole
// vectors go; returns how many elements that were. They are of line `line`, or (`kEach`) each of
// its own, from `line` on.
template <typename V, bool kEach, typename Real>
int sum_vectors(const Operand* tensors, int n, const Operand* base, const double* coefficients,
                const Lines& lines, std::int64_t line, std::int64_t begin, int count, Real* sums) {
  int done = 0;
  if constexpr (V::kWidth > 0) {
    with_dtype(tensors, n, base, [&](auto dtype) {
      with_count<4>(n, [&](auto models) {
        VectorInput<V, dtype()> inputs[models()];
        const VectorInput<V, dtype()> origin(base == nullptr ? tensors[0] : *base, begin);
        const double* each[models()];
        typename V::Real one[models()];
        for (int i = 0; i < models(); ++i) {
          inputs[i] = {tensors[i], begin};
          each[i] = coefficients + i * lines.count + line;
          one[i] = V::fill(static_cast<float>(*each[i]));
        }
        for (; done + V::kWidth <= count; done += V::kWidth) {
          typename V::Real sum;
          for (int i = 0; i < models(); ++i) {
            auto value = inputs[i][done];
            if (base != nullptr) value = V::subtract(value, origin[done]);
            const auto part = V::multiply(kEach ? V::narrow(each[i] + done) : one[i], value);
            sum = i == 0 ? part : V::add(sum, part);
          }
          if (base != nullptr) sum = V::add(origin[done], sum);
          V::store(sums + done, sum);
        }
      });
    });
  }
  return done;
}

// The same by plain loops, of lines of any length.
template <typename Real>
void sum_plain(const Operand* tensors, int n, const Operand* base, const double* coefficients,
               const Lines& lines, std::int64_t begin, int count, Workspace<Real>* space,
               Real* __restrict sum) {
  Real* const origin = base == nullptr ? nullptr : space->origin;
  if (origin != nullptr) decode(*base, begin, count, origin);
  for (int i = 0; i < n; ++i) {
    Real* __restrict value = space->value;
    decode_delta(tensors[i], origin, begin, count, value);
    for_each_line(lines, begin, count, [&](int first, int end, std::int64_t line) {
      const double* each = coefficients + i * lines.count + line;
      const Real one = static_cast<Real>(*each);
      for (int e = first; e < end; ++e) {
        const Real part = (lines.strided ? static_cast<Real>(each[e - first]) : one) * value[e];
        sum[e] = i == 0 ? part : sum[e] + part;
      }
    });
  }
  for (int e = 0; origin != nullptr && e < count; ++e) sum[e] = origin[e] + sum[e];
}

// A run of one canonical block.
template <typename Real>
void sum_run(const Operand* tensors, int n, const Operand* base, const double* coefficients,
             const Lines& lines, std::int64_t begin, int count, Workspace<Real>* space) {
  using V = VectorFor<Real>;
  if (V::kWidth == 0 || (lines.strided ? lines.count : lines.length) < kShort) {
    sum_plain(tensors, n, base, coefficients, lines, begin, count, space, space->sum);
    return;
  }
  for_each_line(lines, begin, count, [&](int first, int end, std::int64_t line) {
    const auto sum = lines.strided ? &sum_vectors<V, true, Real> : &sum_vectors<V, false, Real>;
    first += sum(tensors, n, base, coefficients, lines, line, begin + first, end - first,
                 space->sum + first);
    if (first == end) return;
    sum_plain(tensors, n, base, coefficients, lines, begin + first, end - first, space,
              space->sum + first);
  });
}

template <typename Real>
bool fill_as(const Operand* tensors, int n, const Operand* base, const double* coefficients,
             const Lines& lines, Range range, DType out_dtype, void* out, Workspace<Real>* space) {
  bool bad = false;
  auto* at = static_cast<unsigned char*>(out);
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    sum_run(tensors, n, base, coefficients, lines, begin, count, space);
    bad |= encode(space->sum, count, out_dtype, at);
    at += count * item_size(out_dtype);
  });
  return bad;
}

bool fill(const Operand* tensors, int n, const Operand* base, const double* coefficients,
          const Lines& lines, Compute compute, Range range, DType out_dtype, void* out,
          void* scratch) {
  if (compute == Compute::kFloat64) {
    return fill_as(tensors, n, base, coefficients, lines, range, out_dtype, out,
                   static_cast<Workspace<double>*>(scratch));
  }
  return fill_as(tensors, n, base, coefficients, lines, range, out_dtype, out,
                 static_cast<Workspace<float>*>(scratch));
}

}  // namespace

PYMERGE_EXPORT(WeightedSumKernel, weighted_sum) = {fill, sizeof(Workspace<double>)};

}  // namespace pymerge
