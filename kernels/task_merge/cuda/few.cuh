// A few models of one dtype, all of whose task vectors stay in registers: a sum, or the sum of
// those that are on the winning side.
#pragma once

#include "common/cuda/pointwise.cuh"
#include "task_merge/cuda/merge.cuh"

namespace pymerge::cuda {

// Models up to which choosing among the factors of all sets takes fewer instructions than dividing.
inline constexpr int kChosen = 3;

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
    __device__ __forceinline__ void merge(const TaskParams<Real>& p, const Real*, std::int64_t at,
                                          const Draw& draw, Real (&out)[n]) const {
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
        out[i] = origin[i] + (elects ? elect(p, of) : sum(p, of));
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

    static __device__ __forceinline__ Real elect(const TaskParams<Real>& p,
                                                 const Real (&kept)[models]) {
      Real votes[models];
      Real total = 0;
#pragma unroll
      for (int model = 0; model < models; ++model) {
        votes[model] = p.parts.few[model].vote * kept[model];
        total = model == 0 ? votes[0] : total + votes[model];
      }
      const bool plus = total >= 0;
      bool agrees[models];
      Real merged = 0;
#pragma unroll
      for (int model = 0; model < models; ++model) {
        // A NaN is on no side, and takes part.
        agrees[model] = !((plus ? votes[model] : -votes[model]) <= 0);
        merged = merged + (agrees[model] ? p.parts.few[model].coefficient * kept[model] : Real{0});
      }
      return merged * (models <= kChosen ? chosen_factor(p, agrees) : factor(p, agrees));
    }

    // From the launch's parameters, without a table in shared memory, which would have to be there
    // before the first load. One model after the other halves which it may be.
    static __device__ __forceinline__ Real chosen_factor(const TaskParams<Real>& p,
                                                         const bool (&agrees)[models]) {
      Real factors[1 << models];
#pragma unroll
      for (int taking = 0; taking < 1 << models; ++taking) factors[taking] = p.factors[taking];
#pragma unroll
      for (int model = 0; model < models; ++model) {
#pragma unroll
        for (int i = 0; i < 1 << (models - 1 - model); ++i) {
          factors[i] = agrees[model] ? factors[2 * i + 1] : factors[2 * i];
        }
      }
      return factors[0];
    }

    static __device__ __forceinline__ Real factor(const TaskParams<Real>& p,
                                                  const bool (&agrees)[models]) {
      Real divisor = 0;
      Real single = 0;
      int taking = 0;
#pragma unroll
      for (int model = 0; model < models; ++model) {
        divisor = divisor + (agrees[model] ? p.parts.few[model].weight : Real{0});
        single = single + (agrees[model] ? p.parts.few[model].alone : Real{0});
        taking += agrees[model] ? 1 : 0;
      }
      if (p.has_alone && taking == 1) return single;
      return p.normalize ? p.scale / (divisor == 0 ? Real{1} : divisor) : p.scale;
    }
  };
};

// Blocks that a multiprocessor is to hold at a time: with one vector in flight a thread, many warps
// keep memory busy.
template <int models>
inline constexpr int kBlocksHeld = models <= 3 ? 6 : 4;

template <typename Format, int models, bool elects>
__global__ void __launch_bounds__(kUnitThreads, kBlocksHeld<models>)
    merge_few(const __grid_constant__ TaskParams<typename Format::Real> p) {
  using Real = typename Format::Real;
  merge_units<Few<Format, models, elects>::template Op, models>(
      p, static_cast<const Real*>(nullptr), drawn_words<Real>());
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
