// overlap: a thread finds out which of its 64 elements each model changes, then which of these were
// changed once. Reads every tensor once, and the base once from memory and for further models from
// a cache.
#include "common/cuda/blocks.cuh"
#include "common/cuda/ranks.h"
#include "common/cuda/rules.cuh"
#include "overlap/cuda.h"

namespace pymerge::cuda {
namespace {

// Models whose changes fit in shared memory; those of more are kept in the device's.
constexpr int kSharedModels = 40;

template <typename Real>
struct OverlapParams {
  Units units;
  int n;
  bool has_base;
  Source base;
  Table<Source> tensors;
  Table<MaskRule<Real>> rules;
  std::uint32_t* changes;      // [blocks][n][2][kUnitThreads], or null
  unsigned long long* counts;  // [n][alone, shared]
};

// Which of n elements a model changes.
template <typename Format, int n, typename Draw>
__device__ __forceinline__ unsigned find_changes(const OverlapParams<typename Format::Real>& p,
                                                 int model, std::int64_t at, const Draw& draw) {
  using Real = typename Format::Real;
  const MaskRule<Real>& rule = p.rules[model];
  const auto tensor = Format::template load<n>(p.tensors[model], at);
  Real delta[n];
  Real apart[n];
  if (p.has_base) {
    Real origin[n];
    Format::template decode<n>(Format::template load<n>(p.base, at), origin);
    Format::template decode<n>(tensor, delta);
#pragma unroll
    for (int i = 0; i < n; ++i) delta[i] = delta[i] - origin[i];
  } else {
    Format::template decode<n>(tensor, delta);
  }
  if (rule.kind == MaskRule<Real>::Kind::kSpread) {
    spread_of<Format, n>(p.tensors, p.n, at, apart);
  }
  unsigned changed = keeps<false>(rule, delta, apart, at, draw);
#pragma unroll
  for (int i = 0; i < n; ++i) {
    if (delta[i] == 0) changed &= ~(1u << i);
  }
  return changed;
}

// The same of all of a thread's elements.
template <typename Format>
__device__ __forceinline__ uint2 find_changes(const OverlapParams<typename Format::Real>& p,
                                              int model) {
  using Real = typename Format::Real;
  const MaskRule<Real>& rule = p.rules[model];
  uint2 changes = {0, 0};
  if (!has_unit(p.units)) {
    const std::int64_t at = own_element(p.units);
    if (at < p.units.count) {
      changes.x = find_changes<Format, 1>(p, model, at, [&] { return draw_bit(rule, at); });
    }
    return changes;
  }
  const Unit unit = own_unit(p.units);
  if (unit.first >= p.units.whole) return changes;
  uint2 drawn = {0, 0};
  if (rule.kind == MaskRule<Real>::Kind::kDrawn) {
    drawn = draw_bits(unit.counter, rule.key, rule.limit);
  }
#pragma unroll kAtOnce
  for (int slab = 0; slab < kSlabs; ++slab) {
    const std::int64_t at = unit.at(slab);
    if (at >= p.units.whole) break;
    const int shift = slab % 4 * 8;
    const unsigned changed = find_changes<Format, kVector>(
        p, model, at, [&] { return (slab < 4 ? drawn.x : drawn.y) >> shift & 0xffu; });
    (slab < 4 ? changes.x : changes.y) |= changed << shift;
  }
  return changes;
}

template <typename Format>
__global__ void __launch_bounds__(kUnitThreads, 1)
    count_overlaps(const __grid_constant__ OverlapParams<typename Format::Real> p) {
  std::uint32_t* const changes =
      p.changes == nullptr
          ? shared_memory<std::uint32_t>()
          : p.changes + static_cast<std::int64_t>(blockIdx.x) * p.n * 2 * kUnitThreads;
  uint2 once = {0, 0};
  uint2 more = {0, 0};
#pragma unroll 1
  for (int model = 0; model < p.n; ++model) {
    const uint2 changed = find_changes<Format>(p, model);
    more.x |= once.x & changed.x;
    more.y |= once.y & changed.y;
    once.x |= changed.x;
    once.y |= changed.y;
    changes[2 * model * kUnitThreads + threadIdx.x] = changed.x;
    changes[(2 * model + 1) * kUnitThreads + threadIdx.x] = changed.y;
  }
#pragma unroll 1
  for (int model = 0; model < p.n; ++model) {
    const std::uint32_t low = changes[2 * model * kUnitThreads + threadIdx.x];
    const std::uint32_t high = changes[(2 * model + 1) * kUnitThreads + threadIdx.x];
    const auto shared = static_cast<unsigned>(__popc(low & more.x) + __popc(high & more.y));
    const auto alone = static_cast<unsigned>(__popc(low & ~more.x) + __popc(high & ~more.y));
    // At most 64 a thread: both fit one word.
    const unsigned both = block_count(alone << 16 | shared, model % 2);
    if (threadIdx.x != 0) continue;
    atomicAdd(&p.counts[2 * model], static_cast<unsigned long long>(both >> 16));
    atomicAdd(&p.counts[2 * model + 1], static_cast<unsigned long long>(both & 0xffffu));
  }
}

}  // namespace

std::vector<OverlapCounts> overlap(const Stream& stream, const Inputs& inputs,
                                   const std::vector<Rule>& rules) {
  const std::size_t n = rules.size();
  const Units units = deal_units(inputs.count, is_aligned(inputs), true);
  const RankMasks masks(stream, inputs, rules);
  const DeviceArray<unsigned long long> counts(stream, 2 * n);
  counts.clear();
  const std::size_t room = n * 2 * kUnitThreads;  // of a block
  const bool fits = n <= kSharedModels;
  const DeviceArray<std::uint32_t> changes(
      stream, fits ? 0 : room * static_cast<std::size_t>(units.blocks));
  with_format(inputs, [&](auto format) {
    using Format = decltype(format);
    using Real = typename Format::Real;
    const HostTable<Source> tensors(stream, sources_of(inputs));
    const HostTable<MaskRule<Real>> table(stream, to_device<Real>(rules, masks));
    launch(stream, count_overlaps<Format>, {units.blocks}, kUnitThreads,
           OverlapParams<Real>{units, inputs.size(), inputs.has_base, source_of(inputs.base),
                               tensors.get(), table.get(), changes.data(), counts.data()},
           fits ? room * sizeof(std::uint32_t) : 0);
  });
  const std::vector<unsigned long long> known = counts.to_host();
  std::vector<OverlapCounts> result;
  for (std::size_t model = 0; model < n; ++model) {
    result.push_back({static_cast<std::int64_t>(known[2 * model]),
                      static_cast<std::int64_t>(known[2 * model + 1])});
  }
  return result;
}

}  // namespace pymerge::cuda
