// Inner products of any tensors within a canonical block.
#pragma once

#include "common/lanes.h"
#include "common/rules.h"
#include "gram/fused.h"

namespace pymerge {
namespace {

// Sum of one block's products.
template <typename Real, typename Lane>
double block_dot(const Real* a, const Real* b) {
  return block_sum<Lane>(
      [a, b](int k) { return Lanes<Lane>::load(a + k) * Lanes<Lane>::load(b + k); });
}

// The same with all elements but [first, end) taken for zeros.
template <typename Real, typename Lane>
double part_dot(const Real* a, const Real* b, int first, int end) {
  if (first == 0 && end == kBlock) return block_dot<Real, Lane>(a, b);
  const auto product = [a, b](int k) { return static_cast<Lane>(a[k]) * static_cast<Lane>(b[k]); };
  Lane lanes[kLanes] = {};
  int k = first;
  for (; k < end && k % kLanes != 0; ++k) lanes[k % kLanes] += product(k);
  for (; k + kLanes <= end; k += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += product(k + lane);
  }
  for (; k < end; ++k) lanes[k % kLanes] += product(k);
  return tree_sum(lanes);
}

template <typename Real, typename Lane>
class Dots {
 public:
  // `scratch`: room for n + 1 blocks.
  Dots(const Operand* tensors, int n, const Operand* base, Real* scratch)
      : tensors_(tensors),
        n_(n),
        base_(base),
        scratch_(scratch),
        part_(pick_part<VectorFor<Real>, Lane>(tensors, n, base)) {}

  // Adds the products of elements [first, end) of the block that begins at `begin` to
  // sums[n (n + 1) / 2].
  void add(std::int64_t begin, int first, int end, double* sums) const {
    if (part_ != nullptr && first % kLanes == 0 && end % kLanes == 0) {
      part_(tensors_, base_, begin, first, end, sums);
      return;
    }
    decode_part(begin, first, end);
    add_decoded(first, end, sums);
  }

  // The same by plain loops, in two steps.
  void decode_part(std::int64_t begin, int first, int end) const {
    Real* const origin = base_ == nullptr ? nullptr : values(n_) + first;
    if (origin != nullptr) decode(*base_, begin + first, end - first, origin);
    for (int i = 0; i < n_; ++i) {
      decode_delta(tensors_[i], origin, begin + first, end - first, values(i) + first);
    }
  }
  void add_decoded(int first, int end, double* sums) const {
    for (int i = 0; i < n_; ++i) {
      for (int j = i; j < n_; ++j) {
        *sums++ += part_dot<Real, Lane>(values(i), values(j), first, end);
      }
    }
  }

  int size() const { return n_; }
  // A block of tensor i, or its difference from the base, where it was decoded.
  Real* values(int i) const { return scratch_ + i * kBlock; }

 private:
  const Operand* const tensors_;
  const int n_;
  const Operand* const base_;
  Real* const scratch_;
  const AddPart part_;
};

}  // namespace
}  // namespace pymerge
