// mask: the rules of common/cuda/rules.cuh, stored instead of used; an element a thread.
#include "common/cuda/ranks.h"
#include "common/cuda/rules.cuh"
#include "mask/cuda.h"

namespace pymerge::cuda {
namespace {

template <typename Real>
struct MaskParams {
  std::int64_t count;
  Source delta;
  MaskRule<Real> rule;
  std::int8_t* out;
};

template <typename Format>
__global__ void __launch_bounds__(kThreads)
    fill_mask(const __grid_constant__ MaskParams<typename Format::Real> p) {
  using Real = typename Format::Real;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= p.count) return;
  Real delta[1];
  Format::template decode<1>(Format::template load<1>(p.delta, at), delta);
  const unsigned kept = keeps<false>(p.rule, delta, static_cast<const Real*>(nullptr), at,
                                     [&] { return draw_bit(p.rule, at); });
  p.out[at] = static_cast<std::int8_t>(kept);
}

}  // namespace

void mask(const Stream& stream, const Inputs& inputs, const Rule& rule, std::int8_t* out) {
  const RankMasks masks(stream, inputs, {rule});
  with_format(inputs, [&](auto format) {
    using Real = typename decltype(format)::Real;
    launch(stream, fill_mask<decltype(format)>, {divide_up(inputs.count, kThreads)}, kThreads,
           MaskParams<Real>{inputs.count, source_of(inputs.tensors[0]),
                            to_device<Real>(rule, masks[0]), out});
  });
}

}  // namespace pymerge::cuda
