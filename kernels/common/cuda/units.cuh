// How elements are dealt to threads where masks may be drawn: a thread has one vector of eight in
// each of a canonical block's eight slabs, whose draws come from the same eight counters; or, where
// nothing is drawn, in four of them.
#pragma once

#include "common/cuda/draws.cuh"

namespace pymerge::cuda {

// Few: what a thread keeps of all models leaves room for one, two or three hundred on a
// multiprocessor, which halves of 256 fill better.
inline constexpr int kUnitThreads = 128;
inline constexpr int kUnits = static_cast<int>(kSlab) / kVector;  // threads side by side in a slab
inline constexpr int kUndrawn = 4;  // slabs of a thread where nothing is drawn: more threads
inline constexpr int kAtOnce = 2;   // slabs whose loads are in flight together

// Which blocks work on vectors and which, behind them, on single elements.
struct Units {
  std::int64_t count;
  std::int64_t whole;  // elements in vectors
  std::int64_t unit_blocks;
  std::int64_t blocks;
  int slabs;  // of a thread
};

inline Units deal_units(std::int64_t count, bool by_vectors, bool drawn) {
  const int slabs = drawn ? kSlabs : kUndrawn;
  const std::int64_t whole = by_vectors ? count / kVector * kVector : 0;
  const std::int64_t threads = divide_up(whole, kBlock) * kUnits * (kSlabs / slabs);
  const std::int64_t unit_blocks = divide_up(threads, kUnitThreads);
  return {count, whole, unit_blocks, unit_blocks + divide_up(count - whole, kUnitThreads), slabs};
}

// A thread's own.
struct Unit {
  std::int64_t first;     // element, in slab 0
  std::uint64_t counter;  // of it
  int slab;               // the first of p.slabs

  __device__ __forceinline__ std::int64_t at(int slab) const { return first + slab * kSlab; }
};

__device__ __forceinline__ bool has_unit(const Units& units) {
  return blockIdx.x < units.unit_blocks;
}

__device__ __forceinline__ Unit own_unit(const Units& units) {
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kUnitThreads + threadIdx.x;
  const std::int64_t ahead = thread % kUnits * kVector;
  std::int64_t block = thread / kUnits;
  int slab = 0;
  if (units.slabs != kSlabs) {
    constexpr int kShares = kSlabs / kUndrawn;
    slab = static_cast<int>(block % kShares) * kUndrawn;
    block /= kShares;
  }
  return {block * kBlock + ahead, static_cast<std::uint64_t>(block * kSlab + ahead), slab};
}

// The single element of a thread whose block has no units; not below units.count for some.
__device__ __forceinline__ std::int64_t own_element(const Units& units) {
  return units.whole + (blockIdx.x - units.unit_blocks) * kUnitThreads + threadIdx.x;
}

}  // namespace pymerge::cuda
