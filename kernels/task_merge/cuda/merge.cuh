// The kernel of task_merge; what differs is how the task vectors of some elements become one.
#pragma once

#include "task_merge/cuda/params.cuh"

namespace pymerge::cuda {

// out[i] = bit i of `kept` ? delta[i] : 0, in place.
template <int n, typename Real>
__device__ __forceinline__ void drop(unsigned kept, Real (&delta)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) delta[i] = (kept >> i & 1u) != 0 ? delta[i] : Real{0};
}

// Op<n>::load(p, at) loads n elements' inputs, all of which are loaded before
// Op<n>::merge(p, factors, at, draw, out) makes the first outputs; draw(i) gives the bits of model
// i whose rule draws.
template <template <int> typename Op, int models, typename Real>
__device__ __forceinline__ void merge_units(const TaskParams<Real>& p, const Real* factors,
                                            std::uint32_t* words) {
  // Of any number of models only the base is loaded ahead.
  constexpr int kAhead = models > 0 ? kAtOnce : 1;
  if (has_unit(p.units)) {
    const Unit unit = own_unit(p.units);
    if (unit.at(unit.slab) >= p.units.whole) return;
    const UnitDraws<models, Real> draws(
        words, models > 0 ? models : p.n, unit.counter,
        [&](int i) -> const MaskRule<Real>& { return p.parts[i].rule; });
#pragma unroll 1
    for (int slab = unit.slab; slab < unit.slab + p.units.slabs; slab += kAhead) {
      Op<kVector> inputs[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (unit.at(slab + i) < p.units.whole) inputs[i].load(p, unit.at(slab + i));
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const std::int64_t at = unit.at(slab + i);
        if (at >= p.units.whole) return;
        Real values[kVector];
        inputs[i].merge(
            p, factors, at,
            [&](int model) { return draws.bits(p.parts[model].rule, model, slab + i); }, values);
        store_elements(p.out.data, p.out.dtype, at, values);
      }
    }
    return;
  }
  const std::int64_t at = own_element(p.units);
  if (at >= p.units.count) return;
  Op<1> inputs;
  inputs.load(p, at);
  Real values[1];
  inputs.merge(
      p, factors, at, [&](int model) { return draw_bit(p.parts[model].rule, at); }, values);
  store_elements(p.out.data, p.out.dtype, at, values);
}

// The factors come first in a block's shared memory, then what is drawn.
template <typename Real>
__device__ __forceinline__ const Real* share_factors(const TaskParams<Real>& p) {
  Real* const factors = shared_memory<Real>();
  static_assert(1 << kTabled <= kUnitThreads);
  const int thread = static_cast<int>(threadIdx.x);
  if (p.n <= kTabled && thread < 1 << p.n) factors[thread] = p.factors[thread];
  __syncthreads();
  return factors;
}

template <typename Real>
__device__ __forceinline__ std::uint32_t* drawn_words() {
  return reinterpret_cast<std::uint32_t*>(shared_memory<Real>() + (1 << kTabled));
}

template <typename Real>
void launch_merge(const Stream& stream, void (*kernel)(TaskParams<Real>),
                  const TaskParams<Real>& params, std::size_t drawn) {
  launch(stream, kernel, {params.units.blocks}, kUnitThreads, params,
         sizeof params.factors + drawn);
}

}  // namespace pymerge::cuda
