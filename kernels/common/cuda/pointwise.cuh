// What kernels of one output share: elements dealt to threads, by vectors where all addresses allow
// it, and inputs that are all loaded before one is used.
#pragma once

#include <type_traits>

#include "common/cuda/launch.cuh"

namespace pymerge::cuda {

// Vectors that a thread of such a kernel works on, one block's stride apart: with all models'
// loads in flight, enough of them to keep memory busy.
inline constexpr int kVectors = 2;

// Which blocks work on vectors and which, behind them, on single elements.
struct Deal {
  std::int64_t count;
  std::int64_t vectors;
  std::int64_t vector_blocks;
  std::int64_t blocks;
};

inline Deal deal(std::int64_t count, bool by_vectors) {
  const std::int64_t vectors = by_vectors ? count / kVector : 0;
  const std::int64_t vector_blocks = divide_up(vectors, kThreads * kVectors);
  const std::int64_t singles = count - vectors * kVector;
  return {count, vectors, vector_blocks, vector_blocks + divide_up(singles, kThreads)};
}

inline Deal deal(const Inputs& inputs, const Output& out) {
  return deal(inputs.count, is_aligned(inputs) && is_aligned(out.data));
}

// n elements of the base and of one tensor, for kernels whose Params have those.
template <typename Format, int n>
struct AroundBase {
  using Real = typename Format::Real;
  typename Format::template Raw<n> base;
  typename Format::template Raw<n> tensor;

  template <typename Params>
  __device__ __forceinline__ void load(const Params& p, std::int64_t at) {
    base = Format::template load<n>(p.base, at);
    tensor = Format::template load<n>(p.tensor, at);
  }
  __device__ __forceinline__ void decode(Real (&origin)[n], Real (&value)[n]) const {
    Format::template decode<n>(base, origin);
    Format::template decode<n>(tensor, value);
  }
};

// `models` tensors' n elements from `at` on, loaded at once; of none (0: any number), none.
template <typename Format, int models, int n>
struct Loaded {
  using Real = typename Format::Real;
  typename Format::template Raw<n> raw[models > 0 ? models : 1];

  __device__ __forceinline__ void load(const Table<Source>& tensors, std::int64_t at) {
#pragma unroll
    for (int i = 0; i < models; ++i) raw[i] = Format::template load<n>(tensors[i], at);
  }
  // Tensor i's; with any number of models, from memory.
  __device__ __forceinline__ void get(const Table<Source>& tensors, int i, std::int64_t at,
                                      Real (&out)[n]) const {
    if constexpr (models > 0) {
      Format::template decode<n>(raw[i], out);
    } else {
      Format::template decode<n>(Format::template load<n>(tensors[i], at), out);
    }
  }
};

// For each of a thread's vectors or elements: Op::load(params, at) gives its inputs, all of which
// are loaded before Op::combine(params, inputs, at, out) makes the first outputs. Params has
// `deal` and `out`.
template <typename Op>
__global__ void __launch_bounds__(kThreads) combine(const __grid_constant__ typename Op::Params p) {
  using Real = typename Op::Real;
  const std::int64_t block = blockIdx.x;
  if (block < p.deal.vector_blocks) {
    const std::int64_t first = block * (kThreads * kVectors) + threadIdx.x;
    typename Op::template Inputs<kVector> inputs[kVectors];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const std::int64_t vector = first + i * kThreads;
      if (vector < p.deal.vectors) inputs[i].load(p, vector * kVector);
    }
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const std::int64_t vector = first + i * kThreads;
      if (vector >= p.deal.vectors) return;
      Real values[kVector];
      Op::template combine<kVector>(p, inputs[i], vector * kVector, values);
      store_elements(p.out.data, p.out.dtype, vector * kVector, values);
    }
    return;
  }
  const std::int64_t at =
      p.deal.vectors * kVector + (block - p.deal.vector_blocks) * kThreads + threadIdx.x;
  if (at >= p.deal.count) return;
  typename Op::template Inputs<1> inputs;
  inputs.load(p, at);
  Real values[1];
  Op::template combine<1>(p, inputs, at, values);
  store_elements(p.out.data, p.out.dtype, at, values);
}

// Calls body(Format{}, models) with the number of models as a constant if it is one of `special`
// and all are of one dtype, else with 0.
template <int... special, typename Body>
void with_models(const Inputs& inputs, const Body& body) {
  with_format(inputs, [&](auto format) {
    bool done = false;
    if constexpr (!kIsMixed<decltype(format)>) {
      const auto try_one = [&](auto models) {
        if (done || inputs.size() != models) return;
        body(format, models);
        done = true;
      };
      (try_one(std::integral_constant<int, special>{}), ...);
    }
    if (!done) body(format, std::integral_constant<int, 0>{});
  });
}

}  // namespace pymerge::cuda
