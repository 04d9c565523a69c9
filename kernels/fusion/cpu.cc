// fusion on the CPU. Reads both inputs once, writes the output once.
#include "common/chunk.h"
#include "common/vectors.h"
#include "fusion/fusion.h"

namespace pymerge {
namespace {

template <typename Real>
struct Workspace {
  alignas(64) Real base[kBlock];
  alignas(64) Real value[kBlock];
  alignas(64) Real score[kBlock];
  alignas(64) Real sum[kBlock];
};

// A run by plain loops; `out` is its part of the output.
template <typename Real>
void fuse(const Operand& tensor, const Operand& base, const LineFactors& factors, Bits<Real> least,
          std::int64_t begin, int n, Workspace<Real>* space, Real* __restrict out) {
  Real* __restrict origin = space->base;
  Real* __restrict value = space->value;
  Real* __restrict score = space->score;
  decode(base, begin, n, origin);
  decode(tensor, begin, n, value);
  for (int e = 0; e < n; ++e) score[e] = value[e] = value[e] - origin[e];
  scale_lines(factors.lines, factors.values, begin, n, space->score);
  for (int e = 0; e < n; ++e) {
    out[e] = origin[e] + (magnitude_key(score[e]) >= least ? value[e] : Real{0});
  }
}

// The same of rows, in registers as far as whole vectors of each go.
template <typename V>
void fuse_rows(const Operand& tensor, const Operand& base, const LineFactors& factors,
               std::uint32_t least, std::int64_t begin, int n, Workspace<float>* space) {
  with_dtype(&tensor, 1, &base, [&](auto dtype) {
    // Keys compare as signed numbers: -1 is below all of them.
    const auto below = V::fill_key(least - 1);
    const VectorInput<V, dtype()> values(tensor, begin);
    const VectorInput<V, dtype()> origins(base, begin);
    for_each_line(factors.lines, begin, n, [&](int first, int end, std::int64_t row) {
      const auto factor = V::fill(static_cast<float>(factors.values[row]));
      for (; first + V::kWidth <= end; first += V::kWidth) {
        const auto origin = origins[first];
        const auto delta = V::subtract(values[first], origin);
        const auto reached = V::above(V::magnitude_key(V::multiply(delta, factor)), below);
        V::store(space->sum + first, V::add(origin, V::keep(reached, delta)));
      }
      fuse(tensor, base, factors, least, begin + first, end - first, space, space->sum + first);
    });
  });
}

template <typename Real>
bool fill_as(const Operand& tensor, const Operand& base, const LineFactors& factors,
             double threshold, Range range, DType out_dtype, void* out, void* scratch) {
  using V = VectorFor<Real>;
  auto* space = static_cast<Workspace<Real>*>(scratch);
  const Bits<Real> least = magnitude_key(static_cast<Real>(threshold));
  const bool by_vectors =
      V::kWidth > 0 && !factors.lines.strided && with_dtype(&tensor, 1, &base, [](auto) {});
  bool bad = false;
  auto* at = static_cast<unsigned char*>(out);
  for_each_chunk(range, [&](std::int64_t begin, int n) {
    if constexpr (V::kWidth > 0) {
      if (by_vectors) fuse_rows<V>(tensor, base, factors, least, begin, n, space);
    }
    if (!by_vectors) fuse(tensor, base, factors, least, begin, n, space, space->sum);
    bad |= encode(space->sum, n, out_dtype, at);
    at += n * item_size(out_dtype);
  });
  return bad;
}

bool fill(const Operand& tensor, const Operand& base, const LineFactors& factors, double threshold,
          Compute compute, Range range, DType out_dtype, void* out, void* scratch) {
  return compute == Compute::kFloat64
             ? fill_as<double>(tensor, base, factors, threshold, range, out_dtype, out, scratch)
             : fill_as<float>(tensor, base, factors, threshold, range, out_dtype, out, scratch);
}

}  // namespace

PYMERGE_EXPORT(FusionKernel, fusion) = {fill, sizeof(Workspace<double>)};

}  // namespace pymerge
