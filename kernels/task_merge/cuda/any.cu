// task_merge of any number of tensors of any dtypes, with any consensus: tensors are read where
// they are needed, twice with a consensus, of which the second time from a cache.
#include "task_merge/cuda/merge.cuh"

namespace pymerge::cuda {
namespace {

template <typename Real>
struct Any {
  template <int n>
  struct Op {
    using Format = Mixed<Real>;
    Real base[n];

    __device__ __forceinline__ void load(const TaskParams<Real>& p, std::int64_t at) {
      Format::template decode<n>(Format::template load<n>(p.base, at), base);
    }

    template <typename Draw>
    __device__ __forceinline__ void merge(const TaskParams<Real>& p, const Real* factors,
                                          std::int64_t at, const Draw& draw, Real (&out)[n]) const {
      Real apart[n];
      if (p.has_spread) spread_of<Format, n>(p.tensors, p.n, at, apart);
      const auto keep = [&](int model, Real(&kept)[n]) {
        Format::template decode<n>(Format::template load<n>(p.tensors[model], at), kept);
#pragma unroll
        for (int i = 0; i < n; ++i) kept[i] = kept[i] - base[i];
        const MaskRule<Real>& rule = p.parts[model].rule;
        if (rule.kind == MaskRule<Real>::Kind::kAll) return;
        drop(keeps<true>(rule, kept, apart, at, [&] { return draw(model); }), kept);
      };
      if (p.consensus == Consensus::kNone) {
        add(p, keep, out);
      } else {
        elect(p, factors, keep, out);
      }
#pragma unroll
      for (int i = 0; i < n; ++i) out[i] = base[i] + out[i];
    }

    template <typename Keep>
    static __device__ __forceinline__ void add(const TaskParams<Real>& p, const Keep& keep,
                                               Real (&total)[n]) {
#pragma unroll 1
      for (int model = 0; model < p.n; ++model) {
        Real kept[n];
        keep(model, kept);
#pragma unroll
        for (int i = 0; i < n; ++i) {
          const Real part = kept[i] * p.parts[model].coefficient;
          total[i] = model == 0 ? part : total[i] + part;
        }
      }
    }

    template <typename Keep>
    static __device__ __forceinline__ void elect(const TaskParams<Real>& p, const Real* factors,
                                                 const Keep& keep, Real (&merged)[n]) {
      Real side[n];
      if (p.consensus != Consensus::kOverlap) find_sides(p, keep, side);
      Real divisor[n] = {};
      Real single[n] = {};
      unsigned taking[n] = {};  // a set while they are few, then how many
#pragma unroll
      for (int i = 0; i < n; ++i) merged[i] = 0;
#pragma unroll 1
      for (int model = 0; model < p.n; ++model) {
        Real kept[n];
        keep(model, kept);
        const TaskPart<Real>& numbers = p.parts[model];
#pragma unroll
        for (int i = 0; i < n; ++i) {
          const bool agrees = p.consensus == Consensus::kOverlap
                                  ? kept[i] != 0
                                  : !(numbers.vote * kept[i] * side[i] <= 0);
          const Real part = numbers.coefficient * kept[i];
          if (p.pick) {
            const bool larger = agrees && key_of(part) > key_of(merged[i]);
            merged[i] = larger ? 0 + part : merged[i];
            continue;
          }
          merged[i] = merged[i] + (agrees ? part : Real{0});
          if (p.n <= kTabled) {
            taking[i] |= agrees ? 1u << model : 0u;
            continue;
          }
          taking[i] += agrees ? 1 : 0;
          divisor[i] = divisor[i] + (agrees ? numbers.weight : Real{0});
          single[i] = single[i] + (agrees ? numbers.alone : Real{0});
        }
      }
#pragma unroll
      for (int i = 0; i < n; ++i) {
        Real factor = p.scale;
        if (!p.pick && p.n <= kTabled) {
          factor = factors[taking[i]];
        } else if (!p.pick) {
          if (p.normalize) factor = factor / (divisor[i] == 0 ? Real{1} : divisor[i]);
          if (p.has_alone && taking[i] == 1) factor = single[i];
        }
        merged[i] = merged[i] * factor;
      }
    }

    // 1 where the + side wins, else -1.
    template <typename Keep>
    static __device__ __forceinline__ void find_sides(const TaskParams<Real>& p, const Keep& keep,
                                                      Real (&side)[n]) {
      Real total[n];
#pragma unroll 1
      for (int model = 0; model < p.n; ++model) {
        Real kept[n];
        keep(model, kept);
#pragma unroll
        for (int i = 0; i < n; ++i) {
          Real vote = p.parts[model].vote * kept[i];
          if (p.consensus == Consensus::kCount) vote = vote > 0 ? 1 : vote < 0 ? -1 : 0;
          total[i] = model == 0 ? vote : total[i] + vote;
        }
      }
#pragma unroll
      for (int i = 0; i < n; ++i) side[i] = total[i] >= 0 ? Real{1} : Real{-1};
    }
  };
};

template <typename Real>
__global__ void __launch_bounds__(kUnitThreads)
    merge_any(const __grid_constant__ TaskParams<Real> p) {
  const Real* const factors = share_factors(p);
  merge_units<Any<Real>::template Op, 0>(p, factors, drawn_words<Real>());
}

}  // namespace

void task_merge_any(const Stream& stream, const TaskParams<float>& params, std::size_t shared) {
  launch_merge(stream, merge_any<float>, params, shared);
}
void task_merge_any(const Stream& stream, const TaskParams<double>& params, std::size_t shared) {
  launch_merge(stream, merge_any<double>, params, shared);
}

}  // namespace pymerge::cuda
