// The random draws of masks: random.py's contract, on the device. A counter's eight draws belong to
// elements that lie 128 apart, so a thread works out those of eight neighboring counters: eight
// vectors' masks at once.
#pragma once

#include "common/canonical.h"
#include "common/cuda/launch.cuh"

namespace pymerge::cuda {

inline constexpr int kSlabs = 8;            // draws of a counter
inline constexpr std::int64_t kSlab = 128;  // elements that lie between them: counters of a block

// Philox4x32-7: four words for a counter under a key.
__device__ __forceinline__ uint4 philox(std::uint64_t counter, std::uint64_t key) {
  constexpr std::uint32_t kMultipliers[2] = {0xD2511F53u, 0xCD9E8D57u};
  constexpr std::uint32_t kWeyl[2] = {0x9E3779B9u, 0xBB67AE85u};
  auto c0 = static_cast<std::uint32_t>(counter);
  auto c1 = static_cast<std::uint32_t>(counter >> 32);
  std::uint32_t c2 = 0;
  std::uint32_t c3 = 0;
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 7; ++round) {
    const std::uint64_t first = std::uint64_t{kMultipliers[0]} * c0;
    const std::uint64_t second = std::uint64_t{kMultipliers[1]} * c2;
    c0 = static_cast<std::uint32_t>(second >> 32) ^ c1 ^ k0;
    c2 = static_cast<std::uint32_t>(first >> 32) ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(second);
    c3 = static_cast<std::uint32_t>(first);
    k0 += kWeyl[0];
    k1 += kWeyl[1];
  }
  return {c0, c1, c2, c3};
}

// A draw in the upper half of a word whose lower half says nothing: enough to compare it with a
// limit whose lower half is zero.
__device__ __forceinline__ std::uint32_t draw_in(const uint4& words, int slab) {
  const std::uint32_t word =
      slab < 4 ? (slab < 2 ? words.x : words.y) : (slab < 6 ? words.z : words.w);
  return slab % 2 == 0 ? word << 16 : word;
}

// The draw of one element, of 16 bits.
__device__ __forceinline__ std::uint32_t draw_of(std::int64_t element, std::uint64_t key) {
  const auto counter = static_cast<std::uint64_t>(element / kBlock * kSlab + element % kSlab);
  return draw_in(philox(counter, key), static_cast<int>(element / kSlab % kSlabs)) >> 16;
}

// Of 64 elements the draws below limit / 2^16, a bit each: byte s is of the eight neighbors that
// lie s * 128 past the first of eight counters.
__device__ __forceinline__ uint2 draw_bits(std::uint64_t counter, std::uint64_t key,
                                           std::uint32_t limit) {
  uint2 bits = {0, 0};
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const uint4 words = philox(counter + static_cast<unsigned>(i), key);
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) {
      const std::uint32_t bit = 1u << (slab % 4 * 8 + i);
      if (draw_in(words, slab) < limit) (slab < 4 ? bits.x : bits.y) |= bit;
    }
  }
  return bits;
}

}  // namespace pymerge::cuda
