// The canonical sum of one block: 32 lanes, each adding every 32nd element in order, then a fixed
// tree over the lanes. Vector extensions make one source the right width at every level.
#pragma once

#include "common/canonical.h"

namespace pymerge {
namespace {

template <typename Real>
struct LaneVector {
  typedef Real type __attribute__((vector_size(sizeof(Real) * kLanes), aligned(64)));
};
template <typename Real>
using Lanes = typename LaneVector<Real>::type;

template <typename Real>
inline double tree_sum(const Lanes<Real>& lanes) {
  Real sums[kLanes];
  for (int i = 0; i < kLanes; ++i) sums[i] = lanes[i];
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return static_cast<double>(sums[0]);
}

}  // namespace
}  // namespace pymerge
