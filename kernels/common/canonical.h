// The shapes that make results independent of vector width, threads and device.
#pragma once

#include <cstdint>

namespace pymerge {

// Elements of a canonical block: one partial sum each, 32 lanes wide. Random draws and combine
// chunks never straddle a block's edge.
inline constexpr std::int64_t kBlock = 1024;
inline constexpr int kLanes = 32;
// Elements of a measuring tile (256 blocks): block partials are added in order within it, in
// float64; tile sums are then added exactly, in Python, for all backends.
inline constexpr std::int64_t kTile = 256 * kBlock;

// The type that a kernel calculates in.
enum class Compute : std::uint8_t { kFloat32, kFloat64 };

inline constexpr std::int64_t tile_count(std::int64_t count) {
  return count == 0 ? 1 : (count + kTile - 1) / kTile;
}

// A mask rule, flattened: see pymerge/ops.py for what each means.
struct Rule {
  enum class Kind : std::uint8_t { kKeepAll, kBand, kBernoulli, kSpread, kRanked };
  struct Cut {
    std::uint64_t bits;
    std::int64_t last;
  };
  Kind kind = Kind::kKeepAll;
  Cut outer{0, -1};        // kBand, kSpread: inside this
  Cut inner{~0ull, -1};    // kBand: and not inside this (the default holds nothing)
  std::uint32_t keep = 0;  // kBernoulli: probability x 65536
  std::uint64_t key = 0;   // kBernoulli, kRanked
  double density = 0;      // kRanked: the mean probability
  double epsilon = 0;      // kRanked: how far probabilities go down and up from there
  std::int64_t row = 0;    // kRanked: elements of a row
};

namespace {

inline bool is_drawn(const Rule& rule) {
  return rule.kind == Rule::Kind::kBernoulli || rule.kind == Rule::Kind::kRanked;
}

}  // namespace

}  // namespace pymerge
