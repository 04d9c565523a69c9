// gram on the CPU. Reads every input once; n (n + 1) / 2 multiply-adds an element.
#include "common/lanes.h"
#include "common/rules.h"
#include "gram/gram.h"

namespace pymerge {
namespace {

// Sum of one block's products, a and b padded with zeros to kBlock.
template <typename Real, typename Lane>
double block_dot(const Real* a, const Real* b) {
  return block_sum<Lane>(
      [a, b](int k) { return Lanes<Lane>::load(a + k) * Lanes<Lane>::load(b + k); });
}

template <typename Real, typename Lane>
void add_as(const Operand* tensors, int n, const Operand* base, Range range, double* sums,
            Real* scratch) {
  Real* const origin = base == nullptr ? nullptr : scratch + n * kBlock;
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    if (origin != nullptr) decode(*base, begin, count, origin);
    for (int i = 0; i < n; ++i) {
      Real* const values = scratch + i * kBlock;
      decode_delta(tensors[i], origin, begin, count, values);
      for (int e = count; e < kBlock; ++e) values[e] = 0;
    }
    double* sum = sums;
    for (int i = 0; i < n; ++i) {
      for (int j = i; j < n; ++j) {
        *sum++ += block_dot<Real, Lane>(scratch + i * kBlock, scratch + j * kBlock);
      }
    }
  });
}

void add(const Operand* tensors, int n, const Operand* base, Compute compute, bool narrow,
          Range range, double* sums, void* scratch) {
  if (compute == Compute::kFloat64) {
    add_as<double, double>(tensors, n, base, range, sums, static_cast<double*>(scratch));
  } else if (narrow) {
    add_as<float, float>(tensors, n, base, range, sums, static_cast<float*>(scratch));
  } else {
    add_as<float, double>(tensors, n, base, range, sums, static_cast<float*>(scratch));
  }
}

std::size_t scratch_bytes(int n) {
  return static_cast<std::size_t>(n + 1) * kBlock * sizeof(double);
}

}  // namespace

PYMERGE_EXPORT(GramKernel, gram) = {add, scratch_bytes};

}  // namespace pymerge
