// row_divergence on the CPU: passes over a row, which the caller sees to it are cached.
#include <limits>

#include "row_divergence/fixed_math.h"
#include "row_divergence/near.h"

namespace pymerge {
namespace {

struct Workspace {
  alignas(64) double values[2][kBlock];
  alignas(64) double terms[kBlock];
};

// Calls body(begin, n) for the blocks of a segment, counted from where it starts.
template <typename Body>
void for_each_row_block(Range segment, const Body& body) {
  for (std::int64_t done = 0; done < segment.count; done += kBlock) {
    body(segment.begin + done, static_cast<int>(std::min(kBlock, segment.count - done)));
  }
}

// The canonical sum of n <= kBlock terms.
double sum_terms(double* terms, int n) {
  const int whole = whole_lanes(n);
  for (; n < whole; ++n) terms[n] = 0;
  return block_sum<double>([terms](int k) { return Lanes<double>::load(terms + k); }, whole);
}

void greatest(const Operand* sides, Range segment, FarRow& row, void* scratch) {
  auto* space = static_cast<Workspace*>(scratch);
  for (int side = 0; side < 2; ++side) {
    for_each_row_block(segment, [&](std::int64_t begin, int n) {
      decode(sides[side], begin, n, space->values[side]);
      double most = row.greatest[side];
      for (int e = 0; e < n; ++e) most = std::max(most, space->values[side][e]);
      row.greatest[side] = most;
    });
  }
}

void mass(const Operand* sides, Range segment, FarRow& row, void* scratch) {
  auto* space = static_cast<Workspace*>(scratch);
  for (int side = 0; side < 2; ++side) {
    const double most = row.greatest[side];
    for_each_row_block(segment, [&](std::int64_t begin, int n) {
      const double* __restrict values = space->values[side];
      double* __restrict terms = space->terms;
      decode(sides[side], begin, n, space->values[side]);
      for (int e = 0; e < n; ++e) terms[e] = fixed_exp(values[e] - most);
      row.mass[side] += sum_terms(space->terms, n);
    });
  }
}

void divergence(const Operand* sides, Range segment, FarRow& row, void* scratch) {
  auto* space = static_cast<Workspace*>(scratch);
  const double share[2] = {1.0 / row.mass[0], 1.0 / row.mass[1]};
  for_each_row_block(segment, [&](std::int64_t begin, int n) {
    for (int side = 0; side < 2; ++side) {
      double* __restrict values = space->values[side];
      decode(sides[side], begin, n, values);
      const double most = row.greatest[side];
      const double scale = share[side];
      for (int e = 0; e < n; ++e) values[e] = fixed_exp(values[e] - most) * scale + 1e-8;
    }
    const double* __restrict p = space->values[0];
    const double* __restrict q = space->values[1];
    double* __restrict terms = space->terms;
    for (int e = 0; e < n; ++e) terms[e] = p[e] * fixed_log(p[e] / q[e]);
    row.divergence += sum_terms(space->terms, n);
  });
}

}  // namespace

PYMERGE_EXPORT(RowDivergenceKernel, row_divergence) = {near_mass,  near_divergence,  greatest, mass,
                                                       divergence, sizeof(Workspace)};

}  // namespace pymerge
