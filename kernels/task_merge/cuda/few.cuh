// A few models of one dtype, all of whose task vectors stay in registers: a sum, or the sum of
// those that are on the winning side.
#pragma once

#include "common/cuda/pointwise.cuh"
#include "task_merge/cuda/merge.cuh"

namespace pymerge::cuda {

template <typename Format, int models, bool elects>
struct Few {
  template <int n>
  struct Op {
    using Real = typename Format::Real;
    typename Format::template Raw<n> base;
    Loaded<Format, models, n> tensors;

    __device__ __forceinline__ void load(const TaskParams<Real>& p, std::int64_t at) {
      base = Format::template load<n>(p.base, at);
      tensors.load(p.tensors, at);
    }

    template <typename Draw>
    __device__ __forceinline__ void merge(const TaskParams<Real>& p, const Real* factors,
                                          std::int64_t at, const Draw& draw, Real (&out)[n]) const {
      Real origin[n];
      Format::template decode<n>(base, origin);
      Real kept[models][n];
#pragma unroll
      for (int model = 0; model < models; ++model) {
        tensors.get(p.tensors, model, at, kept[model]);
#pragma unroll
        for (int i = 0; i < n; ++i) kept[model][i] = kept[model][i] - origin[i];
        const MaskRule<Real>& rule = p.parts[model].rule;
        if (rule.kind == MaskRule<Real>::Kind::kAll) continue;
        drop(keeps<true>(rule, kept[model], static_cast<const Real*>(nullptr), at,
                         [&] { return draw(model); }),
             kept[model]);
      }
#pragma unroll
      for (int i = 0; i < n; ++i) {
        Real of[models];
#pragma unroll
        for (int model = 0; model < models; ++model) of[model] = kept[model][i];
        out[i] = origin[i] + (elects ? elect(p, factors, of) : sum(p, of));
      }
    }

    static __device__ __forceinline__ Real sum(const TaskParams<Real>& p,
                                               const Real (&kept)[models]) {
      Real total = kept[0] * p.parts.few[0].coefficient;
#pragma unroll
      for (int model = 1; model < models; ++model) {
        total = total + kept[model] * p.parts.few[model].coefficient;
      }
      return total;
    }

    static __device__ __forceinline__ Real elect(const TaskParams<Real>& p, const Real* factors,
                                                 const Real (&kept)[models]) {
      Real votes[models];
      Real total = 0;
#pragma unroll
      for (int model = 0; model < models; ++model) {
        votes[model] = p.parts.few[model].vote * kept[model];
        total = model == 0 ? votes[0] : total + votes[model];
      }
      const Real side = total >= 0 ? Real{1} : Real{-1};
      Real merged = 0;
      unsigned taking = 0;
#pragma unroll
      for (int model = 0; model < models; ++model) {
        // A NaN is on no side, and takes part.
        const bool agrees = !(votes[model] * side <= 0);
        merged = merged + (agrees ? p.parts.few[model].coefficient * kept[model] : Real{0});
        taking |= agrees ? 1u << model : 0u;
      }
      return merged * factors[taking];
    }
  };
};

// Blocks that a multiprocessor is to hold at a time, as many as registers for all models allow.
template <int models>
inline constexpr int kBlocksHeld = models == 1  ? 6
                                   : models < 4 ? 4
                                                : 3;

template <typename Format, int models, bool elects>
__global__ void __launch_bounds__(kUnitThreads, kBlocksHeld<models>)
    merge_few(const __grid_constant__ TaskParams<typename Format::Real> p) {
  using Real = typename Format::Real;
  const Real* const factors = elects ? share_factors(p) : nullptr;
  merge_units<Few<Format, models, elects>::template Op, models>(p, factors, drawn_words<Real>());
}

template <typename Format>
bool launch_few(const Stream& stream, const TaskParams<float>& p, std::size_t shared) {
  const bool elects = p.consensus != Consensus::kNone;
  const auto run = [&](auto models) {
    constexpr int kModels = decltype(models)::value;
    launch_merge(stream,
                 elects ? merge_few<Format, kModels, true> : merge_few<Format, kModels, false>, p,
                 shared);
    return true;
  };
  switch (p.n) {
    case 1:
      return run(std::integral_constant<int, 1>{});
    case 2:
      return run(std::integral_constant<int, 2>{});
    case 3:
      return run(std::integral_constant<int, 3>{});
    case 4:
      return run(std::integral_constant<int, 4>{});
    default:
      return false;
  }
}

}  // namespace pymerge::cuda
