// The canonical sum of one block: 32 lanes, each adding every 32nd element in order, then a fixed
// tree over the lanes. The lanes are held in as many native vectors as the level needs, so one
// source is the right width everywhere (one 32-lane vector type is not: GCC keeps it in memory).
#pragma once

#include "common/canonical.h"

namespace pymerge {
namespace {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

// The fixed tree over kLanes lanes; changes them.
template <typename Lane>
inline double tree_sum(Lane* lanes) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return static_cast<double>(lanes[0]);
}

template <typename Lane>
struct Lanes {
  static constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(Lane));
  static constexpr int kVectors = kLanes / kWidth;
  typedef Lane Vector __attribute__((vector_size(kVectorBytes)));

  // kWidth values of a Real array, as lanes.
  template <typename Real>
  static Vector load(const Real* at) {
    typedef Real Source
        __attribute__((vector_size(kWidth * sizeof(Real)), aligned(alignof(Real)), may_alias));
    return __builtin_convertvector(*reinterpret_cast<const Source*>(at), Vector);
  }

  Vector sums[kVectors] = {};

  double tree_sum() const {
    Lane lanes[kLanes];
    for (int v = 0; v < kVectors; ++v) {
      for (int i = 0; i < kWidth; ++i) lanes[v * kWidth + i] = sums[v][i];
    }
    return pymerge::tree_sum(lanes);
  }
};

// The canonical sum of term(k), a Lanes<Lane>::Vector of the kWidth terms from k on, k < kBlock.
template <typename Lane, typename Term>
inline double block_sum(const Term& term) {
  Lanes<Lane> lanes;
  for (int k = 0; k < kBlock; k += kLanes) {
#pragma GCC unroll 16
    for (int v = 0; v < Lanes<Lane>::kVectors; ++v) {
      lanes.sums[v] += term(k + v * Lanes<Lane>::kWidth);
    }
  }
  return lanes.tree_sum();
}

// The same of a block's first terms alone, the others being 0; `count` is a multiple of kLanes.
// Apart, since a count that is not constant costs inner products of three 10 % more instructions.
template <typename Lane, typename Term>
inline double block_sum(const Term& term, int count) {
  Lanes<Lane> lanes;
  for (int k = 0; k < count; k += kLanes) {
#pragma GCC unroll 16
    for (int v = 0; v < Lanes<Lane>::kVectors; ++v) {
      lanes.sums[v] += term(k + v * Lanes<Lane>::kWidth);
    }
  }
  return lanes.tree_sum();
}

}  // namespace
}  // namespace pymerge
