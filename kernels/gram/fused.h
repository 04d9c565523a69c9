// Inner products with every element in a register from its decoding to its sums: up to three
// tensors of one 2-byte dtype or float32. What is not of this shape goes through dots.h's loops.
#pragma once

#include "common/lanes.h"
#include "common/vectors.h"

namespace pymerge {
namespace {

inline constexpr int kMostFused = 3;

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
  void load(const double* lanes) {
    low = V::load(lanes);
    high = V::load(lanes + V::kWide);
  }
  void store(double* lanes) const {
    V::store(lanes, low);
    V::store(lanes + V::kWide, high);
  }
};

// The n tensors around `base`, if that is not null, from element `begin` on.
template <typename V, DType dtype, int n>
struct FusedInputs {
  FusedInputs(const Operand* tensors, const Operand* base, std::int64_t begin)
      : based(base != nullptr), origin(base == nullptr ? tensors[0] : *base, begin) {
    for (int i = 0; i < n; ++i) inputs[i] = {tensors[i], begin};
  }

  // Calls body(pair, a, b) for all pairs of the vectors at i.
  template <typename Body>
  void for_each_pair(std::int64_t i, const Body& body) const {
    typename V::Real values[n];
    for (int t = 0; t < n; ++t) {
      values[t] = inputs[t][i];
      if (based) values[t] = V::subtract(values[t], origin[i]);
    }
    int pair = 0;
    for (int t = 0; t < n; ++t) {
      for (int u = t; u < n; ++u) body(pair++, values[t], values[u]);
    }
  }

  const bool based;
  VectorInput<V, dtype> inputs[n];
  const VectorInput<V, dtype> origin;
};

// Adds the products of elements [first, end) of the block that begins at `begin`, both multiples of
// kLanes: a vector's width of lanes at a time, so that all sums stay in registers.
template <typename V, typename Sums, DType dtype, int n>
void add_part(const Operand* tensors, const Operand* base, std::int64_t begin, int first, int end,
              double* sums) {
  constexpr int kPairs = n * (n + 1) / 2;
  typename Sums::Lane lanes[kPairs][kLanes];
  const FusedInputs<V, dtype, n> inputs(tensors, base, begin);
  for (int lane = 0; lane < kLanes; lane += V::kWidth) {
    Sums pairs[kPairs];
    for (int k = first + lane; k < end; k += kLanes) {
      inputs.for_each_pair(k, [&](int pair, auto a, auto b) { pairs[pair].add(a, b); });
    }
    for (int pair = 0; pair < kPairs; ++pair) pairs[pair].store(&lanes[pair][lane]);
  }
  for (int pair = 0; pair < kPairs; ++pair) sums[pair] += tree_sum(lanes[pair]);
}

// The loop for these tensors and a type of lanes; null if there is none.
using AddPart = void (*)(const Operand*, const Operand*, std::int64_t, int, int, double*);
template <typename V, typename Lane>
AddPart pick_part(const Operand* tensors, int n, const Operand* base) {
  AddPart picked = nullptr;
  if constexpr (V::kWidth > 0) {
    using Sums = std::conditional_t<std::is_same_v<Lane, float>, NarrowSums<V>, WideSums<V>>;
    with_dtype(tensors, n, base, [&](auto dtype) {
      with_count<kMostFused>(n, [&](auto count) { picked = &add_part<V, Sums, dtype(), count()>; });
    });
  }
  return picked;
}

// Adds the products of `rows` runs of `count` elements, `width` apart, to sums[pair][width], those
// of one place in the runs in order, as far as whole vectors go; returns how far.
template <typename V>
std::int64_t add_columns_fused(const Operand* tensors, int n, const Operand* base,
                               std::int64_t begin, std::int64_t count, std::int64_t rows,
                               std::int64_t width, double* sums) {
  std::int64_t done = 0;
  if constexpr (V::kWidth > 0) {
    with_dtype(tensors, n, base, [&](auto dtype) {
      with_count<kMostFused>(n, [&](auto size) {
        constexpr int kPairs = size() * (size() + 1) / 2;
        const FusedInputs<V, dtype(), size()> inputs(tensors, base, begin);
        for (; done + V::kWidth <= count; done += V::kWidth) {
          WideSums<V> pairs[kPairs];
          for (int pair = 0; pair < kPairs; ++pair) pairs[pair].load(sums + pair * width + done);
          for (std::int64_t row = 0; row < rows; ++row) {
            inputs.for_each_pair(row * width + done,
                                 [&](int pair, auto a, auto b) { pairs[pair].add(a, b); });
          }
          for (int pair = 0; pair < kPairs; ++pair) pairs[pair].store(sums + pair * width + done);
        }
      });
    });
  }
  return done;
}

}  // namespace
}  // namespace pymerge
