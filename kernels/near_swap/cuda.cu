// near_swap: Y = X where it is within t of the base, else the base moved by t towards it. Reads
// both inputs once, writes the output once.
#include "common/cuda/pointwise.cuh"
#include "near_swap/cuda.h"

namespace pymerge::cuda {
namespace {

template <typename Format>
struct Swap {
  using Real = typename Format::Real;

  struct Params {
    Deal deal;
    Output out;
    Source base;
    Source tensor;
    Real reach;
    Real least;
  };

  template <int n>
  using Inputs = AroundBase<Format, n>;

  template <int n>
  static __device__ __forceinline__ void combine(const Params& p, const Inputs<n>& inputs,
                                                 std::int64_t, Real (&out)[n]) {
    Real origin[n];
    Real value[n];
    inputs.decode(origin, value);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const Real delta = value[i] - origin[i];
      const Real distance = delta < 0 ? -delta : delta;
      const Real share = p.reach / (distance < p.least ? p.least : distance);
      // Not "share < 1": NaN must come out of the sum.
      out[i] = share >= 1 ? value[i] : origin[i] + share * delta;
    }
  }
};

}  // namespace

void near_swap(const Stream& stream, const Inputs& inputs, double t, const Output& out) {
  with_format<true>(inputs, [&](auto format) {
    using Op = Swap<decltype(format)>;
    using Real = typename Op::Real;
    const Deal dealt = deal(inputs, out);
    launch(stream, combine<Op>, {dealt.blocks}, kThreads,
           typename Op::Params{dealt, out, source_of(inputs.base), source_of(inputs.tensors[0]),
                               static_cast<Real>(t), static_cast<Real>(1e-6)});
  });
}

}  // namespace pymerge::cuda
