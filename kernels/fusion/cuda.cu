// fusion: Y = B + (|D k| >= threshold ? D : 0), k per line. Reads both inputs once, writes the
// output once.
#include "common/cuda/lines.cuh"
#include "common/cuda/pointwise.cuh"
#include "fusion/cuda.h"

namespace pymerge::cuda {
namespace {

template <typename Format>
struct Fuse {
  using Real = typename Format::Real;

  struct Params {
    Deal deal;
    Output out;
    Source base;
    Source tensor;
    const Real* factors;
    Lines lines;
    Real threshold;
  };

  template <int n>
  using Inputs = AroundBase<Format, n>;

  template <int n>
  static __device__ __forceinline__ void combine(const Params& p, const Inputs<n>& inputs,
                                                 std::int64_t at, Real (&out)[n]) {
    Real origin[n];
    Real value[n];
    inputs.decode(origin, value);
    const auto least = key_of(p.threshold);
    for_lines<n>(p.lines, at, [&](int i, std::int64_t line) {
      const Real delta = value[i] - origin[i];
      const bool reached = key_of(delta * p.factors[line]) >= least;
      out[i] = origin[i] + (reached ? delta : Real{0});
    });
  }
};

}  // namespace

void fusion(const Stream& stream, const Inputs& inputs, const std::vector<double>& factors,
            const Lines& lines, double threshold, const Output& out) {
  with_format<true>(inputs, [&](auto format) {
    using Op = Fuse<decltype(format)>;
    using Real = typename Op::Real;
    const DeviceArray<Real> numbers(stream, to_reals<Real>(factors));
    const Deal dealt = deal(inputs, out);
    launch(stream, combine<Op>, {dealt.blocks}, kThreads,
           typename Op::Params{dealt, out, source_of(inputs.base), source_of(inputs.tensors[0]),
                               numbers.data(), lines, static_cast<Real>(threshold)});
  });
}

}  // namespace pymerge::cuda
