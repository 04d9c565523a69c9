// gram on the CPU. Reads every input once; n (n + 1) / 2 multiply-adds an element.
#include "common/lanes.h"
#include "common/rules.h"
#include "common/vectors.h"
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

// Block partials of float64 lanes over float32 values, a vector's width of lanes at a time, so that
// all sums stay in registers.
template <typename V, DType dtype, int n>
void add_block_vectors(const Operand* tensors, const Operand* base, std::int64_t begin,
                       double* sums) {
  constexpr int kPairs = n * (n + 1) / 2;
  double lanes[kPairs][kLanes];
  VectorInput<V, dtype> inputs[n];
  for (int i = 0; i < n; ++i) inputs[i] = {tensors[i], begin};
  const VectorInput<V, dtype> origin(base == nullptr ? tensors[0] : *base, begin);
  for (int lane = 0; lane < kLanes; lane += V::kWidth) {
    typename V::Wide low[kPairs] = {};
    typename V::Wide high[kPairs] = {};
    for (int k = lane; k < kBlock; k += kLanes) {
      typename V::Wide lows[n];
      typename V::Wide highs[n];
      for (int i = 0; i < n; ++i) {
        auto value = inputs[i][k];
        if (base != nullptr) value = V::subtract(value, origin[k]);
        lows[i] = V::widen_low(value);
        highs[i] = V::widen_high(value);
      }
      int pair = 0;
      for (int i = 0; i < n; ++i) {
        for (int j = i; j < n; ++j, ++pair) {
          low[pair] = V::add_product(lows[i], lows[j], low[pair]);
          high[pair] = V::add_product(highs[i], highs[j], high[pair]);
        }
      }
    }
    for (int pair = 0; pair < kPairs; ++pair) {
      V::store(&lanes[pair][lane], low[pair]);
      V::store(&lanes[pair][lane + V::kWide], high[pair]);
    }
  }
  for (int pair = 0; pair < kPairs; ++pair) sums[pair] += tree_sum(lanes[pair]);
}

// Whole blocks of `range`, where vectors serve; returns how many elements that were.
template <typename V>
std::int64_t add_vectors(const Operand* tensors, int n, const Operand* base, Range range,
                         double* sums) {
  std::int64_t done = 0;
  if constexpr (V::kWidth > 0) {
    with_dtype(tensors, n, base, [&](auto dtype) {
      with_count<3>(n, [&](auto count) {
        for (; done + kBlock <= range.count; done += kBlock) {
          add_block_vectors<V, dtype(), count()>(tensors, base, range.begin + done, sums);
        }
      });
    });
  }
  return done;
}

void add(const Operand* tensors, int n, const Operand* base, Compute compute, bool narrow,
         Range range, double* sums, void* scratch) {
  if (compute == Compute::kFloat64) {
    add_as<double, double>(tensors, n, base, range, sums, static_cast<double*>(scratch));
  } else if (narrow) {
    add_as<float, float>(tensors, n, base, range, sums, static_cast<float*>(scratch));
  } else {
    const std::int64_t done = add_vectors<simd::Vector>(tensors, n, base, range, sums);
    add_as<float, double>(tensors, n, base, {range.begin + done, range.count - done}, sums,
                          static_cast<float*>(scratch));
  }
}

std::size_t scratch_bytes(int n) {
  return static_cast<std::size_t>(n + 1) * kBlock * sizeof(double);
}

}  // namespace

PYMERGE_EXPORT(GramKernel, gram) = {add, scratch_bytes};

}  // namespace pymerge
