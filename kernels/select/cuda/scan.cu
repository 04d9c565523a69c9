// The pass over all data: of every entry, a kind of keys and a bracket, how many keys are above, at
// the ends and inside, tile by tile; and those inside. A block does one tile, all entries of it.
#include "common/cuda/pointwise.cuh"
#include "select/cuda/passes.cuh"

namespace pymerge::cuda {
namespace {

// A thread's keys of a tile.
template <typename Key>
inline constexpr int kThreadKeys = kTileKeys<Key> / kThreads;

// Of a whole tile, by vectors; what the kinds share is loaded once.
template <typename Format, How how>
struct Vectors {
  using Key = KeyOf<typename Format::Real>;
  using Params = KeyParams<typename Format::Real>;
  static constexpr int kReaders = kThreadKeys<Key> / kVector;
  KeyReader<Format, how, kVector> readers[kReaders];
  std::int64_t first;

  __device__ __forceinline__ Vectors(const Params& p, std::int64_t tile)
      : first(tile * kTileKeys<Key> + static_cast<std::int64_t>(threadIdx.x) * kVector) {
#pragma unroll
    for (int i = 0; i < kReaders; ++i) readers[i].load_base(p, first + i * kThreads * kVector);
  }
  __device__ __forceinline__ void get(const Params& p, int kind, Key (&keys)[kThreadKeys<Key>]) {
#pragma unroll
    for (int i = 0; i < kReaders; ++i) readers[i].load(p, kind, first + i * kThreads * kVector);
#pragma unroll
    for (int i = 0; i < kReaders; ++i) {
      readers[i].get(p, first + i * kThreads * kVector, keys + i * kVector);
    }
  }
};

// Of any tile, one by one; -1 where there is no element.
template <typename Format, How how>
struct Singles {
  using Key = KeyOf<typename Format::Real>;
  using Params = KeyParams<typename Format::Real>;
  std::int64_t first;

  __device__ __forceinline__ Singles(const Params&, std::int64_t tile)
      : first(tile * kTileKeys<Key> + threadIdx.x) {}
  __device__ __forceinline__ void get(const Params& p, int kind, Key (&keys)[kThreadKeys<Key>]) {
#pragma unroll
    for (int i = 0; i < kThreadKeys<Key>; ++i) {
      const std::int64_t at = first + i * kThreads;
      keys[i] = -1;
      if (at >= p.count) continue;
      KeyReader<Format, how, 1> reader;
      reader.load_base(p, at);
      reader.load(p, kind, at);
      reader.get(p, at, keys + i);
    }
  }
};

// What a block knows of the entry that it is at, and of the one before, which is still being
// copied.
template <typename Key>
struct Shared {
  unsigned above[2];
  unsigned ends[2];  // at the top, and in the upper half at the bottom
  unsigned zeros[2];
  unsigned inside[2];
  unsigned long long slot[2];
  Key keys[2][kTileKeys<Key>];
};

template <typename Key>
__device__ __forceinline__ void clear(Shared<Key>& shared, int turn) {
  shared.above[turn] = shared.ends[turn] = shared.zeros[turn] = shared.inside[turn] = 0;
}

// Classifies a thread's keys; puts those inside where the block collects them.
template <bool zeros, typename Key, int n>
__device__ __forceinline__ void classify(const Key (&keys)[n], Bracket bracket, Shared<Key>& shared,
                                         int turn) {
  const auto low = static_cast<Key>(bracket.low);
  const auto high = static_cast<Key>(bracket.high);
  const auto width = static_cast<Unsigned<Key>>(high) - static_cast<Unsigned<Key>>(low);
  unsigned above = 0;
  unsigned ends = 0;
  unsigned none = 0;
#pragma unroll
  for (int i = 0; i < n; ++i) {
    above += keys[i] > high ? 1u : 0u;
    if (zeros) none += keys[i] == 0 ? 1u : 0u;
    if (static_cast<Unsigned<Key>>(keys[i]) - static_cast<Unsigned<Key>>(low) <= width) {
      if (keys[i] == high) {
        ends += 1;
      } else if (keys[i] == low) {
        ends += 1u << 16;
      } else {
        shared.keys[turn][atomicAdd(&shared.inside[turn], 1u)] = keys[i];
      }
    }
  }
  above = __reduce_add_sync(kWholeWarp, above);
  ends = __reduce_add_sync(kWholeWarp, ends);
  if (zeros) none = __reduce_add_sync(kWholeWarp, none);
  if (threadIdx.x % kWarp == 0) {
    if (above != 0) atomicAdd(&shared.above[turn], above);
    if (ends != 0) atomicAdd(&shared.ends[turn], ends);
    if (zeros && none != 0) atomicAdd(&shared.zeros[turn], none);
  }
}

template <bool zeros, typename Reader, typename Real>
__device__ __forceinline__ void scan_tile(const SearchParams<Real>& p, Reader& reader,
                                          std::int64_t tile, Shared<KeyOf<Real>>& shared) {
  if (threadIdx.x < 2) clear(shared, static_cast<int>(threadIdx.x));
  __syncthreads();
  int turn = 0;
  for (int kind = 0; kind < p.keys.kinds; ++kind) {
    KeyOf<Real> keys[kThreadKeys<KeyOf<Real>>];
    reader.get(p.keys, kind, keys);
    for (int entry = 0; entry < p.entries; ++entry) {
      if (p.entry[entry].kind != kind) continue;
      classify<zeros>(keys, p.room.brackets[entry], shared, turn);
      __syncthreads();
      const unsigned inside = shared.inside[turn];
      if (threadIdx.x == 0) {
        const unsigned long long slot =
            inside == 0 ? 0 : atomicAdd(&p.room.slots[entry * kPadding], 0ull + inside);
        shared.slot[turn] = slot;
        const auto room = static_cast<unsigned long long>(p.room.room);
        p.room.tiles[entry * p.room.tile_count + tile] = {
            shared.above[turn],
            shared.ends[turn] & 0xffffu,
            inside,
            shared.ends[turn] >> 16,
            shared.zeros[turn],
            static_cast<unsigned>(slot < room ? slot : room)};
        // The next but one has this turn; everybody is done with the one before.
        clear(shared, turn ^ 1);
      }
      __syncthreads();
      const auto slot = static_cast<std::int64_t>(shared.slot[turn]);
      for (unsigned i = threadIdx.x; i < inside; i += kThreads) {
        if (slot + i < p.room.room) {
          p.room.gathered[entry * p.room.room + slot + i] = shared.keys[turn][i];
        }
      }
      turn ^= 1;
    }
  }
}

template <typename Format, How how>
__global__ void __launch_bounds__(kThreads, kIsMixed<Format> ? 2 : 3)
    scan_keys(const __grid_constant__ SearchParams<typename Format::Real> p) {
  using Key = KeyOf<typename Format::Real>;
  __shared__ Shared<Key> shared;
  constexpr bool kZeros = how == How::kSpread;
  const std::int64_t tile = blockIdx.x;
  if (p.keys.by_vectors && (tile + 1) * kTileKeys<Key> <= p.keys.count) {
    Vectors<Format, how> reader(p.keys, tile);
    scan_tile<kZeros>(p, reader, tile, shared);
  } else {
    Singles<Format, how> reader(p.keys, tile);
    scan_tile<kZeros>(p, reader, tile, shared);
  }
}

}  // namespace

template <typename Real>
void scan(const Stream& stream, const Inputs& inputs, const SearchParams<Real>& params) {
  const Grid grid{params.room.tile_count};
  if (params.how == How::kDelta) {
    with_format(inputs, [&](auto format) {
      using Format = decltype(format);
      if constexpr (std::is_same_v<typename Format::Real, Real>) {
        launch(stream, scan_keys<Format, How::kDelta>, grid, kThreads, params);
      }
    });
    return;
  }
  with_format<true>(inputs, [&](auto format) {
    using Format = decltype(format);
    if constexpr (std::is_same_v<typename Format::Real, Real>) {
      const auto kernel = params.how == How::kLines ? scan_keys<Format, How::kLines>
                                                    : scan_keys<Format, How::kSpread>;
      launch(stream, kernel, grid, kThreads, params);
    }
  });
}

template void scan(const Stream&, const Inputs&, const SearchParams<float>&);
template void scan(const Stream&, const Inputs&, const SearchParams<double>&);

}  // namespace pymerge::cuda
