// The pass over all data: of every entry, a kind of keys and a bracket, how many keys are above, at
// the ends and inside, tile by tile; and those inside. A block does one tile, all entries of it.
#include "common/cuda/pointwise.cuh"
#include "select/cuda/passes.cuh"

namespace pymerge::cuda {
namespace {

// A thread's keys of a tile: some vectors, or single elements where vectors cannot be read.
template <typename Format, How how, int n>
struct TileReader {
  using Reader = KeyReader<Format, how, n>;
  using Key = typename Reader::Key;
  static constexpr int kKeys = kTileKeys<Key> / kThreads;
  static constexpr int kReaders = kKeys / n;
  Reader readers[kReaders];

  static __device__ __forceinline__ std::int64_t place(std::int64_t tile, int i) {
    return tile * kTileKeys<Key> + (i * kThreads + static_cast<int>(threadIdx.x)) * n;
  }
  template <typename Params>
  __device__ __forceinline__ void load_base(const Params& p, std::int64_t tile) {
#pragma unroll
    for (int i = 0; i < kReaders; ++i) {
      if (place(tile, i) < p.count) readers[i].load_base(p, place(tile, i));
    }
  }
  // -1 where there is no element.
  template <typename Params>
  __device__ __forceinline__ void get(const Params& p, std::int64_t tile, int kind,
                                      Key (&keys)[kKeys]) {
#pragma unroll
    for (int i = 0; i < kReaders; ++i) {
      if (place(tile, i) < p.count) readers[i].load(p, kind, place(tile, i));
    }
#pragma unroll
    for (int i = 0; i < kReaders; ++i) {
      if (place(tile, i) < p.count) {
        readers[i].get(p, place(tile, i), keys + i * n);
      } else {
#pragma unroll
        for (int k = 0; k < n; ++k) keys[i * n + k] = -1;
      }
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

template <typename Format, How how, int n>
__device__ __forceinline__ void scan_tile(const SearchParams<typename Format::Real>& p,
                                          Shared<KeyOf<typename Format::Real>>& shared) {
  using Reader = TileReader<Format, how, n>;
  using Key = typename Reader::Key;
  const std::int64_t tile = blockIdx.x;
  Reader reader;
  reader.load_base(p.keys, tile);
  if (threadIdx.x < 2) clear(shared, static_cast<int>(threadIdx.x));
  __syncthreads();
  int turn = 0;
  for (int kind = 0; kind < p.keys.kinds; ++kind) {
    Key keys[Reader::kKeys];
    reader.get(p.keys, tile, kind, keys);
    for (int entry = 0; entry < p.entries; ++entry) {
      if (p.entry[entry].kind != kind) continue;
      classify<how == How::kSpread>(keys, p.room.brackets[entry], shared, turn);
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
__global__ void __launch_bounds__(kThreads)
    scan_keys(const __grid_constant__ SearchParams<typename Format::Real> p) {
  using Key = KeyOf<typename Format::Real>;
  __shared__ Shared<Key> shared;
  if (p.keys.by_vectors && (blockIdx.x + std::int64_t{1}) * kTileKeys<Key> <= p.keys.count) {
    scan_tile<Format, how, kVector>(p, shared);
  } else {
    scan_tile<Format, how, 1>(p, shared);
  }
}

}  // namespace

template <typename Real>
void scan(const Stream& stream, const Inputs& inputs, const SearchParams<Real>& params) {
  with_format(inputs, [&](auto format) {
    using Format = decltype(format);
    if constexpr (std::is_same_v<typename Format::Real, Real>) {
      const Grid grid{params.room.tile_count};
      if (params.how == How::kSpread) {
        launch(stream, scan_keys<Format, How::kSpread>, grid, kThreads, params);
      } else if (params.how == How::kLines) {
        launch(stream, scan_keys<Format, How::kLines>, grid, kThreads, params);
      } else {
        launch(stream, scan_keys<Format, How::kDelta>, grid, kThreads, params);
      }
    }
  });
}

template void scan(const Stream&, const Inputs&, const SearchParams<float>&);
template void scan(const Stream&, const Inputs&, const SearchParams<double>&);

}  // namespace pymerge::cuda
