// gram on the CPU. Reads every input once; n (n + 1) / 2 multiply-adds an element.
#include "common/vectors.h"
#include "gram/gram.h"
#include "gram/per_line.h"

namespace pymerge {
namespace {

template <typename Real, typename Lane>
void add_as(const Operand* tensors, int n, const Operand* base, Range range, double* sums,
            Real* scratch) {
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    decode_all(tensors, n, base, begin, count, scratch);
    for (int i = 0; i < n; ++i) {
      for (int e = count; e < kBlock; ++e) scratch[i * kBlock + e] = 0;
    }
    double* sum = sums;
    for (int i = 0; i < n; ++i) {
      for (int j = i; j < n; ++j) {
        *sum++ += block_dot<Real, Lane>(scratch + i * kBlock, scratch + j * kBlock);
      }
    }
  });
}

// The lanes of one vector's width of a block's products: float32 sums, or float64 ones in two
// halves.
template <typename V>
struct NarrowSums {
  using Lane = float;
  typename V::Real sum{};
  void add(typename V::Real a, typename V::Real b) { sum = V::add(sum, V::multiply(a, b)); }
  void store(float* lanes) const { V::store(lanes, sum); }
};
template <typename V>
struct WideSums {
  using Lane = double;
  typename V::Wide low{};
  typename V::Wide high{};
  void add(typename V::Real a, typename V::Real b) {
    low = V::add_product(V::widen_low(a), V::widen_low(b), low);
    high = V::add_product(V::widen_high(a), V::widen_high(b), high);
  }
  void store(double* lanes) const {
    V::store(lanes, low);
    V::store(lanes + V::kWide, high);
  }
};

// Block partials, a vector's width of lanes at a time, so that all sums stay in registers.
template <typename V, template <typename> typename Sums, DType dtype, int n>
void add_block_vectors(const Operand* tensors, const Operand* base, std::int64_t begin,
                       double* sums) {
  constexpr int kPairs = n * (n + 1) / 2;
  typename Sums<V>::Lane lanes[kPairs][kLanes];
  VectorInput<V, dtype> inputs[n];
  for (int i = 0; i < n; ++i) inputs[i] = {tensors[i], begin};
  const VectorInput<V, dtype> origin(base == nullptr ? tensors[0] : *base, begin);
  for (int lane = 0; lane < kLanes; lane += V::kWidth) {
    Sums<V> pairs[kPairs];
    for (int k = lane; k < kBlock; k += kLanes) {
      typename V::Real values[n];
      for (int i = 0; i < n; ++i) {
        values[i] = inputs[i][k];
        if (base != nullptr) values[i] = V::subtract(values[i], origin[k]);
      }
      int pair = 0;
      for (int i = 0; i < n; ++i) {
        for (int j = i; j < n; ++j) pairs[pair++].add(values[i], values[j]);
      }
    }
    for (int pair = 0; pair < kPairs; ++pair) pairs[pair].store(&lanes[pair][lane]);
  }
  for (int pair = 0; pair < kPairs; ++pair) sums[pair] += tree_sum(lanes[pair]);
}

// Whole blocks of `range`, where vectors serve; returns how many elements that were.
template <typename V, template <typename> typename Sums>
std::int64_t add_vectors(const Operand* tensors, int n, const Operand* base, Range range,
                         double* sums) {
  std::int64_t done = 0;
  if constexpr (V::kWidth > 0) {
    with_dtype(tensors, n, base, [&](auto dtype) {
      with_count<3>(n, [&](auto count) {
        for (; done + kBlock <= range.count; done += kBlock) {
          add_block_vectors<V, Sums, dtype(), count()>(tensors, base, range.begin + done, sums);
        }
      });
    });
  }
  return done;
}

void add(const Operand* tensors, int n, const Operand* base, Compute compute, bool narrow,
         Range range, double* sums, void* scratch) {
  using V = simd::Vector;
  if (compute == Compute::kFloat64) {
    add_as<double, double>(tensors, n, base, range, sums, static_cast<double*>(scratch));
    return;
  }
  const std::int64_t done = narrow ? add_vectors<V, NarrowSums>(tensors, n, base, range, sums)
                                   : add_vectors<V, WideSums>(tensors, n, base, range, sums);
  const Range rest{range.begin + done, range.count - done};
  if (narrow) {
    add_as<float, float>(tensors, n, base, rest, sums, static_cast<float*>(scratch));
  } else {
    add_as<float, double>(tensors, n, base, rest, sums, static_cast<float*>(scratch));
  }
}

std::size_t scratch_bytes(int n) {
  return static_cast<std::size_t>(n + 1) * kBlock * sizeof(double);
}

}  // namespace

PYMERGE_EXPORT(GramKernel, gram) = {add, scratch_bytes, add_rows, add_columns};

}  // namespace pymerge
