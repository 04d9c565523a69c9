// The one order of sums: canonical.py's contract, on the device. A canonical block's 32 lanes are
// eight in each of four neighboring threads, so that a warp works on eight blocks and a thread
// loads 16 bytes of a 2-byte type at a time.
#pragma once

#include "common/canonical.h"
#include "common/cuda/launch.cuh"

namespace pymerge::cuda {

inline constexpr int kParts = kLanes / kVector;  // threads of a canonical block
inline constexpr int kGroups = kWarp / kParts;   // canonical blocks of a warp
inline constexpr int kSteps = static_cast<int>(kBlock / kLanes);
inline constexpr std::int64_t kTileBlocks = kTile / kBlock;

// Which of a launch's groups of four threads this one is of, and which of the four.
__device__ __forceinline__ std::int64_t group_index() {
  return (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kParts;
}
__device__ __forceinline__ int part_index() { return static_cast<int>(threadIdx.x % kParts); }

// The fixed tree over a block's lanes, of which the thread holds [part * 8, part * 8 + 8); right in
// part 0. For whole warps.
template <typename Lane>
__device__ __forceinline__ double add_lanes(const Lane (&lanes)[kVector]) {
  Lane sums[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    sums[i] = lanes[i] + __shfl_xor_sync(kWholeWarp, lanes[i], 2);
    sums[i] = sums[i] + __shfl_xor_sync(kWholeWarp, sums[i], 1);
  }
#pragma unroll
  for (int width = kVector / 2; width > 0; width /= 2) {
#pragma unroll
    for (int i = 0; i < width; ++i) sums[i] = sums[i] + sums[i + width];
  }
  return static_cast<double>(sums[0]);
}

// Canonical blocks that hold `count` elements.
inline std::int64_t block_count(std::int64_t count) { return divide_up(count, kBlock); }

// [rows][blocks] block sums of `count` elements to sums [tiles][rows], on the host: a tile's blocks
// are added in order. Waits for the stream.
std::vector<double> tile_sums(const Stream& stream, const DeviceArray<double>& blocks,
                              std::int64_t rows, std::int64_t count);

}  // namespace pymerge::cuda
