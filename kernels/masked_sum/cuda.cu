// masked_sum: norms before and after masks, a partial for each canonical block and model. Reads
// every tensor once, and the base once from memory and for further models from a cache.
#include <bit>

#include "common/cuda/ranks.h"
#include "common/cuda/rules.cuh"
#include "common/cuda/sums.cuh"
#include "masked_sum/cuda.h"

namespace pymerge::cuda {
namespace {

constexpr int kSumThreads = 128;
// Steps of a block in a slab.
constexpr int kSlabSteps = static_cast<int>(kSlab) / kLanes;

template <typename Real>
struct MaskedParams {
  std::int64_t count;
  int n;
  bool by_vectors;
  bool has_base;
  bool squares;
  Source base;
  Table<Source> tensors;
  Table<MaskRule<Real>> rules;
  double* sums;                // [n][all, kept][blocks]
  unsigned long long* most;    // of maxima instead, as bit patterns: [n][all, kept]
  unsigned long long* counts;  // [n]
};

// n elements of a task vector.
template <typename Format, int n>
struct DeltaLoad {
  using Real = typename Format::Real;
  typename Format::template Raw<n> tensor;
  typename Format::template Raw<n> base;

  __device__ __forceinline__ void load(const MaskedParams<Real>& p, int model, std::int64_t at) {
    tensor = Format::template load<n>(p.tensors[model], at);
    if (p.has_base) base = Format::template load<n>(p.base, at);
  }
  __device__ __forceinline__ void decode(const MaskedParams<Real>& p, Real (&delta)[n]) const {
    Format::template decode<n>(tensor, delta);
    if (!p.has_base) return;
    Real origin[n];
    Format::template decode<n>(base, origin);
#pragma unroll
    for (int i = 0; i < n; ++i) delta[i] = delta[i] - origin[i];
  }
};

// A thread's lanes of sums.
struct SumLanes {
  double all[kVector] = {};
  double kept[kVector] = {};

  template <typename Real>
  __device__ __forceinline__ void add(int i, Real delta, bool keep, bool squares) {
    const double magnitude = delta < 0 ? -delta : delta;
    const double part = keep ? magnitude : 0.0;
    if constexpr (std::is_same_v<Real, float>) {
      // Both products are exact, so this rounds like an addition.
      all[i] = __fma_rn(magnitude, squares ? magnitude : 1.0, all[i]);
      kept[i] = __fma_rn(part, squares ? part : 1.0, kept[i]);
    } else {
      all[i] = all[i] + (squares ? magnitude * magnitude : magnitude);
      kept[i] = kept[i] + (squares ? part * part : part);
    }
  }
  template <typename Real>
  __device__ __forceinline__ void store(const MaskedParams<Real>& p, int model,
                                        std::int64_t block) const {
    const double sums[2] = {add_lanes(all), add_lanes(kept)};
    const std::int64_t blocks = (p.count + kBlock - 1) / kBlock;
    if (part_index() != 0 || block >= blocks) return;
    p.sums[2 * model * blocks + block] = sums[0];
    p.sums[(2 * model + 1) * blocks + block] = sums[1];
  }
};

// Or of maxima: keys, of which a NaN's is the largest.
template <typename Real>
struct MostLanes {
  using Word = decltype(key_of(Real{}));
  Word all = 0;
  Word kept = 0;

  __device__ __forceinline__ void add(int, Real delta, bool keep, bool) {
    const Word key = key_of(delta);
    if (key > all) all = key;
    if (keep && key > kept) kept = key;
  }
  __device__ __forceinline__ void store(const MaskedParams<Real>& p, int model,
                                        std::int64_t) const {
    raise(&p.most[2 * model], all);
    raise(&p.most[2 * model + 1], kept);
  }
  static __device__ __forceinline__ void raise(unsigned long long* most, Word key) {
    unsigned long long bits = key;
    if constexpr (std::is_same_v<Real, float>) {
      bits = encode_f64(static_cast<double>(__uint_as_float(key)));
    }
#pragma unroll
    for (int apart = kWarp / 2; apart > 0; apart /= 2) {
      const unsigned long long other = __shfl_xor_sync(kWholeWarp, bits, apart);
      if (other > bits) bits = other;
    }
    if (threadIdx.x % kWarp == 0 && bits != 0) atomicMax(most, bits);
  }
};

// A vector's elements one by one, zeros past the end; returns which there are.
template <typename Format, typename Real>
__device__ __forceinline__ unsigned gather(const MaskedParams<Real>& p, const MaskRule<Real>& rule,
                                           int model, std::int64_t at, Real (&delta)[kVector],
                                           Real (&apart)[kVector]) {
  __shared__ Real deltas[kVector][kSumThreads];
  __shared__ Real aparts[kVector][kSumThreads];
  unsigned inside = 0;
#pragma unroll 1
  for (int i = 0; i < kVector; ++i) {
    Real one[1] = {0};
    Real other[1] = {0};
    if (at + i < p.count) {
      inside |= 1u << i;
      DeltaLoad<Format, 1> loaded;
      loaded.load(p, model, at + i);
      loaded.decode(p, one);
      if (rule.kind == MaskRule<Real>::Kind::kSpread) {
        spread_of<Format, 1>(p.tensors, p.n, at + i, other);
      }
    }
    deltas[i][threadIdx.x] = one[0];
    aparts[i][threadIdx.x] = other[0];
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    delta[i] = deltas[i][threadIdx.x];
    apart[i] = aparts[i][threadIdx.x];
  }
  return inside;
}

template <typename Format, typename LanesOf>
__global__ void __launch_bounds__(kSumThreads, 1)
    masked_blocks(const __grid_constant__ MaskedParams<typename Format::Real> p) {
  using Real = typename Format::Real;
  // Steps whose loads are in flight together.
  constexpr int kLoads = kIsMixed<Format> ? 1 : kSlabSteps / 2;
  __shared__ std::uint32_t words[kSlabSteps * 2 * kSumThreads];
  // Models side by side, so that they meet in the cache where they read the base.
  const int model = static_cast<int>(blockIdx.x) % p.n;
  const std::int64_t block =
      (static_cast<std::int64_t>(blockIdx.x) / p.n * kSumThreads + threadIdx.x) / kParts;
  const MaskRule<Real>& rule = p.rules[model];
  const int ahead = part_index() * kVector;
  if (rule.kind == MaskRule<Real>::Kind::kDrawn) {
#pragma unroll 1
    for (int step = 0; step < kSlabSteps; ++step) {
      const auto counter = static_cast<std::uint64_t>(block * kSlab + step * kLanes + ahead);
      const uint2 bits = draw_bits(counter, rule.key, rule.limit);
      words[2 * step * kSumThreads + threadIdx.x] = bits.x;
      words[(2 * step + 1) * kSumThreads + threadIdx.x] = bits.y;
    }
  }
  LanesOf lanes;
  int held = 0;
  const auto add = [&](const Real(&delta)[kVector], const Real* apart, std::int64_t at, int slab,
                       int step, unsigned inside) {
    const unsigned kept =
        inside & keeps<false>(rule, delta, apart, at, [&] {
          const int word = 2 * step + slab / 4;
          return words[word * kSumThreads + threadIdx.x] >> (slab % 4 * 8) & 0xffu;
        });
    held += __popc(kept);
#pragma unroll
    for (int i = 0; i < kVector; ++i) lanes.add(i, delta[i], (kept >> i & 1u) != 0, p.squares);
  };
  const bool whole = p.by_vectors && (block + 1) * kBlock <= p.count;
#pragma unroll 1
  for (int slab = 0; slab < kSlabs; ++slab) {
    const std::int64_t first = block * kBlock + slab * kSlab + ahead;
#pragma unroll 1
    for (int step = 0; step < kSlabSteps; step += kLoads) {
      Real apart[kVector];
      if (whole) {
        DeltaLoad<Format, kVector> loaded[kLoads];
#pragma unroll
        for (int i = 0; i < kLoads; ++i) loaded[i].load(p, model, first + (step + i) * kLanes);
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          const std::int64_t at = first + (step + i) * kLanes;
          Real delta[kVector];
          loaded[i].decode(p, delta);
          if (rule.kind == MaskRule<Real>::Kind::kSpread) {
            spread_of<Format, kVector>(p.tensors, p.n, at, apart);
          }
          add(delta, apart, at, slab, step + i, 0xffu);
        }
        continue;
      }
#pragma unroll 1
      for (int i = step; i < step + kLoads; ++i) {
        const std::int64_t at = first + i * kLanes;
        if (at >= p.count) break;
        Real delta[kVector];
        add(delta, apart, at, slab, i, gather<Format>(p, rule, model, at, delta, apart));
      }
    }
  }
  lanes.store(p, model, block);
  held = static_cast<int>(__reduce_add_sync(kWholeWarp, static_cast<unsigned>(held)));
  if (threadIdx.x % kWarp == 0 && held != 0) {
    atomicAdd(&p.counts[model], static_cast<unsigned long long>(held));
  }
}

}  // namespace

std::vector<MaskedTotals> masked_sum(const Stream& stream, const Inputs& inputs,
                                     const std::vector<Rule>& rules, Norm norm) {
  const std::size_t n = rules.size();
  const std::int64_t blocks = block_count(inputs.count);
  const bool maxima = norm == Norm::kMax;
  const RankMasks masks(stream, inputs, rules);
  const DeviceArray<double> sums(stream, maxima ? 0 : static_cast<std::size_t>(blocks) * 2 * n);
  // The counts, then the maxima.
  const DeviceArray<unsigned long long> words(stream, 3 * n);
  words.clear();
  with_format(inputs, [&](auto format) {
    using Format = decltype(format);
    using Real = typename Format::Real;
    const HostTable<Source> tensors(stream, sources_of(inputs));
    const HostTable<MaskRule<Real>> table(stream, to_device<Real>(rules, masks));
    // Maxima are rare: they are compiled for all dtypes at once.
    launch(stream,
           maxima ? masked_blocks<Mixed<Real>, MostLanes<Real>> : masked_blocks<Format, SumLanes>,
           {divide_up(blocks * kParts, kSumThreads) * inputs.size()}, kSumThreads,
           MaskedParams<Real>{inputs.count, inputs.size(), is_aligned(inputs), inputs.has_base,
                              norm == Norm::kL2, source_of(inputs.base), tensors.get(), table.get(),
                              sums.data(), words.data() + n, words.data()});
  });
  const auto rows = static_cast<std::int64_t>(2 * n);
  const std::vector<double> partials =
      maxima ? std::vector<double>{} : tile_sums(stream, sums, rows, inputs.count);
  const std::vector<unsigned long long> known = words.to_host();
  std::vector<MaskedTotals> totals(maxima ? n : partials.size() / 2);
  for (std::size_t i = 0; i < totals.size(); ++i) {
    if (maxima) {
      totals[i].total = std::bit_cast<double>(known[n + 2 * i]);
      totals[i].kept = std::bit_cast<double>(known[n + 2 * i + 1]);
    } else {
      totals[i].total = partials[2 * i];
      totals[i].kept = partials[2 * i + 1];
    }
    if (i < n) totals[i].count = static_cast<std::int64_t>(known[i]);
  }
  return totals;
}

}  // namespace pymerge::cuda
