// Philox4x32-7 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3), 16 bits an
// element, laid out so that vectors and GPU threads need no shuffles: in canonical block b, counter
// b * 128 + j (j = 0..127) gives the eight draws of elements j, 128 + j, ..., 896 + j, low half
// first.
#pragma once

#include <cstdint>

#include "common/canonical.h"

namespace pymerge {
namespace {

inline constexpr int kCounters = 128;

inline void block_draws(std::uint64_t key, std::int64_t block, std::uint16_t* __restrict draws) {
  const std::uint64_t first = static_cast<std::uint64_t>(block) * kCounters;
  // 128 divides 2^32: the high word is the same for the whole block.
  const auto low = static_cast<std::uint32_t>(first);
  const auto high = static_cast<std::uint32_t>(first >> 32);
  for (int j = 0; j < kCounters; ++j) {
    std::uint32_t c0 = low + static_cast<std::uint32_t>(j);
    std::uint32_t c1 = high;
    std::uint32_t c2 = 0;
    std::uint32_t c3 = 0;
    auto k0 = static_cast<std::uint32_t>(key);
    auto k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 7; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
      c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<std::uint32_t>(p1);
      c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<std::uint32_t>(p0);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    draws[0 * kCounters + j] = static_cast<std::uint16_t>(c0);
    draws[1 * kCounters + j] = static_cast<std::uint16_t>(c0 >> 16);
    draws[2 * kCounters + j] = static_cast<std::uint16_t>(c1);
    draws[3 * kCounters + j] = static_cast<std::uint16_t>(c1 >> 16);
    draws[4 * kCounters + j] = static_cast<std::uint16_t>(c2);
    draws[5 * kCounters + j] = static_cast<std::uint16_t>(c2 >> 16);
    draws[6 * kCounters + j] = static_cast<std::uint16_t>(c3);
    draws[7 * kCounters + j] = static_cast<std::uint16_t>(c3 >> 16);
  }
}

}  // namespace
}  // namespace pymerge
