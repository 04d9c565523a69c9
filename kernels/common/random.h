// Philox4x32-7 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3), 16 bits an
// element, laid out so that vectors and GPU threads need no shuffles: in canonical block b, counter
// b * 128 + j (j = 0..127) gives the eight draws of elements j, 128 + j, ..., 896 + j, low half
// first.
#pragma once

#include <cstdint>

#include "common/canonical.h"
#include "common/simd.h"

namespace pymerge {
namespace {

// The draws of one canonical block.
inline void block_draws(std::uint64_t key, std::int64_t block, std::uint16_t* draws) {
  simd::draw_block(key, static_cast<std::uint64_t>(block) * plain::kCounters, draws);
}

}  // namespace
}  // namespace pymerge
