// The choice among what a scan gathered: histograms narrow the range of keys down to one, then its
// ties are counted by tile and the last one that still belongs is looked up in the tensor.
#include "select/cuda/passes.cuh"

namespace pymerge::cuda {
namespace {

constexpr int kChoiceThreads = kMostThreads;
// Blocks that read one entry's gathered keys at most, and keys that are worth one.
constexpr int kGatheredBlocks = 128;
constexpr int kBlockKeys = 8 * kThreads;

// Sums up the tiles and says where each entry's rank is.
template <typename Real>
__global__ void __launch_bounds__(kChoiceThreads)
    locate(const __grid_constant__ SearchParams<Real> p) {
  const int entry = static_cast<int>(blockIdx.x);
  const TileCounts* const tiles = p.room.tiles + entry * p.room.tile_count;
  std::int64_t above = 0;
  std::int64_t at_high = 0;
  std::int64_t inside = 0;
  std::int64_t at_low = 0;
  std::int64_t zeros = 0;
#pragma unroll 2
  for (std::int64_t tile = threadIdx.x; tile < p.room.tile_count; tile += kChoiceThreads) {
    const TileCounts counts = tiles[tile];
    above += counts.above;
    at_high += counts.at_high;
    inside += counts.inside;
    at_low += counts.at_low;
    zeros += counts.zeros;
  }
  above = block_sum(above);
  at_high = block_sum(at_high);
  inside = block_sum(inside);
  at_low = block_sum(at_low);
  zeros = block_sum(zeros);
  if (threadIdx.x != 0) return;

  const Entry asked = p.entry[entry];
  State state{};
  state.bracket = p.room.brackets[entry];
  state.wanted =
      asked.share >= 0
          ? static_cast<std::int64_t>(asked.share * static_cast<double>(p.keys.count - zeros))
          : asked.wanted;
  state.above = above;
  state.at_high = at_high;
  state.inside = inside;
  state.at_low = at_low;
  state.rank = state.wanted - above;
  state.low = state.bracket.low + 1;
  state.high = state.bracket.high - 1;
  if (state.wanted == 0) {
    state.where = Where::kNowhere;
  } else if (state.rank <= 0) {
    state.where = Where::kAbove;
  } else if (state.rank <= at_high) {
    state.where = Where::kAtHigh;
    state.low = state.high = state.bracket.high;
  } else if ((state.rank -= at_high) <= inside) {
    state.where = inside <= p.room.room ? Where::kInside : Where::kTooMany;
  } else if ((state.rank -= inside) <= at_low) {
    state.where = Where::kAtLow;
    state.low = state.high = state.bracket.low;
  } else {
    state.where = Where::kBelow;
  }
  p.room.states[entry] = state;
}

// Of a range of keys that is cut into kChoiceBuckets at most.
__device__ __forceinline__ int bucket_shift(const State& state) {
  const auto width = static_cast<unsigned long long>(state.high - state.low);
  const int bits = 64 - __clzll(static_cast<long long>(width));
  return bits > kChoiceBits ? bits - kChoiceBits : 0;
}

template <typename Real>
__global__ void __launch_bounds__(kThreads)
    count_gathered(const __grid_constant__ SearchParams<Real> p) {
  using Key = KeyOf<Real>;
  __shared__ unsigned counts[kChoiceBuckets];
  const int entry = static_cast<int>(blockIdx.y);
  const State state = p.room.states[entry];
  if (state.where != Where::kInside || state.low == state.high) return;
  for (int i = static_cast<int>(threadIdx.x); i < kChoiceBuckets; i += kThreads) counts[i] = 0;
  __syncthreads();
  const int shift = bucket_shift(state);
  const Key* const keys = p.room.gathered + entry * p.room.room;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
#pragma unroll 4
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
       i < state.inside; i += step) {
    const std::int64_t key = keys[i];
    if (key >= state.low && key <= state.high) {
      atomicAdd(&counts[static_cast<int>((key - state.low) >> shift)], 1u);
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kChoiceBuckets; i += kThreads) {
    if (counts[i] != 0) atomicAdd(&p.room.buckets[entry * kChoiceBuckets + i], counts[i]);
  }
}

// Goes on in the bucket that holds the rank; leaves the buckets empty.
template <typename Real>
__global__ void __launch_bounds__(kChoiceThreads)
    pick_bucket(const __grid_constant__ SearchParams<Real> p) {
  constexpr int kEach = kChoiceBuckets / kChoiceThreads;
  const int entry = static_cast<int>(blockIdx.x);
  State& state = p.room.states[entry];
  const State before = state;
  if (before.where != Where::kInside || before.low == before.high) return;
  // From the largest.
  unsigned* const top = p.room.buckets + (entry + 1) * kChoiceBuckets - 1;
  const int first = static_cast<int>(threadIdx.x) * kEach;
  unsigned counts[kEach];
  std::int64_t sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    counts[i] = top[-(first + i)];
    top[-(first + i)] = 0;
    sum += counts[i];
  }
  std::int64_t above = block_scan(sum).before;
  if (before.rank <= above || before.rank > above + sum) return;
  int i = 0;
  while (before.rank > above + counts[i]) above += counts[i++];
  const int shift = bucket_shift(before);
  const auto bucket = static_cast<std::int64_t>(kChoiceBuckets - 1 - (first + i));
  state.low = before.low + (bucket << shift);
  const std::int64_t last = state.low + ((std::int64_t{1} << shift) - 1);
  state.high = last < before.high ? last : before.high;
  state.rank = before.rank - above;
}

// How often each tile holds the key that was found: a warp a tile.
template <typename Real>
__global__ void __launch_bounds__(kThreads)
    count_ties(const __grid_constant__ SearchParams<Real> p) {
  using Key = KeyOf<Real>;
  const int entry = static_cast<int>(blockIdx.y);
  const std::int64_t tile =
      static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (tile >= p.room.tile_count) return;
  const Where where = p.room.states[entry].where;
  const TileCounts counts = p.room.tiles[entry * p.room.tile_count + tile];
  unsigned ties = where == Where::kAtHigh ? counts.at_high : counts.at_low;
  if (where == Where::kInside) {
    const auto found = static_cast<Key>(p.room.states[entry].low);
    const Key* const keys = p.room.gathered + entry * p.room.room + counts.slot;
    ties = 0;
    for (unsigned i = threadIdx.x % kWarp; i < counts.inside; i += kWarp) {
      ties += keys[i] == found ? 1u : 0u;
    }
    ties = __reduce_add_sync(kWholeWarp, ties);
  }
  if (threadIdx.x % kWarp == 0) p.room.ties[entry * p.room.tile_count + tile] = ties;
}

// The place of the last tie that belongs: first the tile, then in it.
template <typename Real>
__global__ void __launch_bounds__(kChoiceThreads)
    find_last(const __grid_constant__ SearchParams<Real> p) {
  using Key = KeyOf<Real>;
  __shared__ std::int64_t chosen;
  __shared__ std::int64_t left;
  const int entry = static_cast<int>(blockIdx.x);
  State& state = p.room.states[entry];
  const Where where = state.where;
  if (where != Where::kAtHigh && where != Where::kInside && where != Where::kAtLow) return;
  const auto key = static_cast<Key>(state.low);
  const std::int64_t rank = state.rank;

  const unsigned* const ties = p.room.ties + entry * p.room.tile_count;
  const std::int64_t each = (p.room.tile_count + kChoiceThreads - 1) / kChoiceThreads;
  const std::int64_t first = threadIdx.x * each;
  const std::int64_t end = first + each < p.room.tile_count ? first + each : p.room.tile_count;
  std::int64_t sum = 0;
  for (std::int64_t tile = first; tile < end; ++tile) sum += ties[tile];
  std::int64_t before = block_scan(sum).before;
  if (before < rank && rank <= before + sum) {
    std::int64_t tile = first;
    while (before + ties[tile] < rank) before += ties[tile++];
    chosen = tile;
    left = rank - before;
  }
  __syncthreads();

  constexpr int kEach = kTileKeys<Key> / kChoiceThreads;
  const std::int64_t place =
      chosen * kTileKeys<Key> + static_cast<std::int64_t>(threadIdx.x) * kEach;
  unsigned same = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (place + i >= p.keys.count) break;
    const bool ties_here = key_at(p.keys, p.how, p.entry[entry].kind, place + i) == key;
    same |= ties_here ? 1u << i : 0u;
  }
  const std::int64_t wanted = left - block_scan(__popc(same)).before;
  if (wanted < 1 || wanted > __popc(same)) return;
  for (std::int64_t i = 1; i < wanted; ++i) same &= same - 1;
  state.last = place + __ffs(static_cast<int>(same)) - 1;
}

}  // namespace

template <typename Real>
void choose(const Stream& stream, const SearchParams<Real>& params) {
  constexpr int kBits = static_cast<int>(sizeof(Real)) * 8 - 1;
  const std::int64_t readers =
      std::min<std::int64_t>(kGatheredBlocks, divide_up(params.room.room, kBlockKeys));
  launch(stream, locate<Real>, {params.entries}, kChoiceThreads, params);
  for (int bits = 0; bits < kBits; bits += kChoiceBits) {
    launch(stream, count_gathered<Real>, {readers, params.entries}, kThreads, params);
    launch(stream, pick_bucket<Real>, {params.entries}, kChoiceThreads, params);
  }
  const std::int64_t blocks = divide_up(params.room.tile_count, kThreads / kWarp);
  launch(stream, count_ties<Real>, {blocks, params.entries}, kThreads, params);
  launch(stream, find_last<Real>, {params.entries}, kChoiceThreads, params);
}

template void choose(const Stream&, const SearchParams<float>&);
template void choose(const Stream&, const SearchParams<double>&);

}  // namespace pymerge::cuda
