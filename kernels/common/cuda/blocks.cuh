// Sums over the threads of a block, of counts. For all threads of a block at once.
#pragma once

#include "common/cuda/launch.cuh"

namespace pymerge::cuda {

inline constexpr int kMostThreads = 1024;

// What all threads before this one have, and what all have.
struct Before {
  std::int64_t before;
  std::int64_t total;
};

__device__ __forceinline__ Before block_scan(std::int64_t value) {
  __shared__ std::int64_t warps[kMostThreads / kWarp];
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  std::int64_t sum = value;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const std::int64_t other = __shfl_up_sync(kWholeWarp, sum, static_cast<unsigned>(step));
    if (lane >= step) sum += other;
  }
  __syncthreads();  // the last scan has been read
  if (lane == kWarp - 1) warps[warp] = sum;
  __syncthreads();
  Before result{sum - value, 0};
  for (int i = 0; i < static_cast<int>(blockDim.x / kWarp); ++i) {
    if (i < warp) result.before += warps[i];
    result.total += warps[i];
  }
  return result;
}

__device__ __forceinline__ std::int64_t block_sum(std::int64_t value) {
  return block_scan(value).total;
}

// The sum of counts that fit 32 bits; `turn` is 0 and 1 in turns, so that one barrier is enough.
__device__ __forceinline__ unsigned block_count(unsigned value, int turn) {
  __shared__ unsigned warps[2][kMostThreads / kWarp];
  const unsigned lane = threadIdx.x % kWarp;
  const unsigned sum = __reduce_add_sync(kWholeWarp, value);
  if (lane == 0) warps[turn][threadIdx.x / kWarp] = sum;
  __syncthreads();
  return __reduce_add_sync(kWholeWarp, lane < blockDim.x / kWarp ? warps[turn][lane] : 0u);
}

}  // namespace pymerge::cuda
