// Which products a thread adds up: all pairs of a few tensors, or of many one tensor with four.
#pragma once

#include "common/cuda/launch.cuh"
#include "common/cuda/sums.cuh"

namespace pymerge::cuda {

struct GramParams {
  std::int64_t count;
  int n;
  int tasks;  // parts of the pairs, one after the other in a launch
  bool by_vectors;
  bool has_base;
  Source base;
  Table<Source> tensors;
  Lines lines;
  std::int64_t height;  // columns: rows of a group
  double* sums;
};

// Tensors that one thread multiplies the first of its own with, where they are many.
inline constexpr int kOthers = 4;

// `models` tensors and all their pairs; models = 0: tensor `left`, and its pairs with up to four
// from `right` on.
template <int models>
struct Pairs {
  static constexpr int kTensors = models > 0 ? models : 1 + kOthers;
  static constexpr int kPairs = models > 0 ? models * (models + 1) / 2 : kOthers;
  int n = models;
  int left = 0;
  int right = 0;

  // Part number `task` of the n tensors' pairs: (0, 0..3), (0, 4..7), ..., (1, 1..4), ...
  __device__ __forceinline__ Pairs(const GramParams& p, int task) {
    if constexpr (models == 0) {
      n = p.n;
      for (; task >= (n - left + kOthers - 1) / kOthers; ++left) {
        task -= (n - left + kOthers - 1) / kOthers;
      }
      right = left + task * kOthers;
    }
  }

  // Whether there is the i-th of this part's tensors, and which it is.
  __device__ __forceinline__ bool has(int i) const {
    return models > 0 || i == 0 || right + i - 1 < n;
  }
  __device__ __forceinline__ int tensor(int i) const {
    return models > 0 ? i : i == 0 ? left : right + i - 1;
  }
  __device__ __forceinline__ bool has_pair(int pair) const {
    return models > 0 || right + pair < n;
  }
  // Its place among all.
  __device__ __forceinline__ int place(int pair) const {
    return models > 0 ? pair : left * n - left * (left - 1) / 2 + right + pair - left;
  }
};

template <typename Lane, typename Real>
__device__ __forceinline__ Lane add_product(Real a, Real b, Lane sum) {
  if constexpr (std::is_same_v<Lane, Real>) {
    return sum + a * b;
  } else {
    // The product of two float32 is exact in float64, so this rounds like an addition.
    return __fma_rn(static_cast<double>(a), static_cast<double>(b), sum);
  }
}

// Products of n elements each of this part's tensors onto the pairs' sums.
template <int models, int n, typename Lane, typename Real>
__device__ __forceinline__ void add_products(const Real (&values)[Pairs<models>::kTensors][n],
                                             Lane (&sums)[Pairs<models>::kPairs][n]) {
  if constexpr (models == 0) {
#pragma unroll
    for (int other = 0; other < kOthers; ++other) {
#pragma unroll
      for (int i = 0; i < n; ++i) {
        sums[other][i] = add_product(values[0][i], values[1 + other][i], sums[other][i]);
      }
    }
  } else {
    int pair = 0;
#pragma unroll
    for (int a = 0; a < models; ++a) {
#pragma unroll
      for (int b = a; b < models; ++b, ++pair) {
#pragma unroll
        for (int i = 0; i < n; ++i) {
          sums[pair][i] = add_product(values[a][i], values[b][i], sums[pair][i]);
        }
      }
    }
  }
}

// n elements of all of this part's tensors, loaded before one is used.
template <typename Format, int models, int n>
struct GramLoad {
  using Real = typename Format::Real;
  static constexpr int kTensors = Pairs<models>::kTensors;
  typename Format::template Raw<n> raw[kTensors];
  typename Format::template Raw<n> base;

  // Zeros where they are not `inside`, and of tensors that there are not.
  __device__ __forceinline__ void load(const GramParams& p, const Pairs<models>& pairs,
                                       std::int64_t at, bool inside) {
    base = {};
    if (p.has_base && inside) base = Format::template load<n>(p.base, at);
#pragma unroll
    for (int i = 0; i < kTensors; ++i) {
      raw[i] = {};
      if (inside && pairs.has(i)) raw[i] = Format::template load<n>(p.tensors[pairs.tensor(i)], at);
    }
  }

  __device__ __forceinline__ void decode(const GramParams& p, Real (&values)[kTensors][n]) const {
    Real origin[n];
    Format::template decode<n>(base, origin);
#pragma unroll
    for (int tensor = 0; tensor < kTensors; ++tensor) {
      Format::template decode<n>(raw[tensor], values[tensor]);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        if (p.has_base) values[tensor][i] = values[tensor][i] - origin[i];
      }
    }
  }
};

// Steps of a block whose loads are in flight together, so that what they hold stays in registers.
template <typename Format, int models, typename Lane>
__host__ __device__ constexpr int count_at_once() {
  if (kIsMixed<Format>) return 1;
  const bool wide = sizeof(Lane) == 8;
  if (std::is_same_v<Format, Same<DType::kF32>>) return models == 2 ? 2 : 1;
  return models == 2 && !wide ? 4 : 2;
}

// Adds the products of elements [begin, end) of the block from `first` on, of which this thread has
// eight in 32. `by_vectors`: no eight lie across an end.
template <typename Format, int models, typename Lane>
__device__ __forceinline__ void add_block(const GramParams& p, const Pairs<models>& pairs,
                                          bool by_vectors, std::int64_t first, std::int64_t begin,
                                          std::int64_t end,
                                          Lane (&sums)[Pairs<models>::kPairs][kVector]) {
  using Real = typename Format::Real;
  constexpr int kTensors = Pairs<models>::kTensors;
  first += part_index() * kVector;
  if (by_vectors) {
    constexpr int kAtOnce = count_at_once<Format, models, Lane>();
#pragma unroll 1
    for (int step = 0; step < kSteps; step += kAtOnce) {
      GramLoad<Format, models, kVector> loaded[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const std::int64_t at = first + (step + i) * kLanes;
        loaded[i].load(p, pairs, at, at >= begin && at < end);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        Real values[kTensors][kVector];
        loaded[i].decode(p, values);
        add_products<models>(values, sums);
      }
    }
    return;
  }
#pragma unroll 1
  for (int step = 0; step < kSteps; ++step) {
    Real values[kTensors][kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const std::int64_t at = first + step * kLanes + i;
      GramLoad<Format, models, 1> loaded;
      loaded.load(p, pairs, at, at >= begin && at < end);
      Real one[kTensors][1];
      loaded.decode(p, one);
#pragma unroll
      for (int tensor = 0; tensor < kTensors; ++tensor) values[tensor][i] = one[tensor][0];
    }
    add_products<models>(values, sums);
  }
}

// Calls body(Format{}, models, Lane{}) for the inputs; models = 0 for any number but 2, and 3 if
// that is `most`.
template <int most, typename Body>
void with_gram(const Inputs& inputs, bool narrow, const Body& body) {
  with_format<most == 2>(inputs, [&](auto format) {
    using Format = decltype(format);
    const auto with_lane = [&](auto models) {
      if constexpr (std::is_same_v<typename Format::Real, float> &&
                    !std::is_same_v<Format, Same<DType::kF32>>) {
        if (narrow) return body(format, models, float{});
      }
      body(format, models, double{});
    };
    if constexpr (!kIsMixed<Format>) {
      if (inputs.size() == 2) return with_lane(std::integral_constant<int, 2>{});
      if constexpr (most >= 3) {
        if (inputs.size() == 3) return with_lane(std::integral_constant<int, 3>{});
      }
    }
    with_lane(std::integral_constant<int, 0>{});
  });
}

// Parts of the pairs of n tensors.
template <int models>
int count_tasks(int n) {
  if (models > 0) return 1;
  int tasks = 0;
  for (int left = 0; left < n; ++left) tasks += (n - left + kOthers - 1) / kOthers;
  return tasks;
}

inline GramParams gram_params(const Inputs& inputs, const HostTable<Source>& tensors, int tasks,
                              const Lines& lines, double* sums) {
  return {inputs.count,
          inputs.size(),
          tasks,
          is_aligned(inputs),
          inputs.has_base,
          source_of(inputs.base),
          tensors.get(),
          lines,
          0,
          sums};
}

}  // namespace pymerge::cuda
