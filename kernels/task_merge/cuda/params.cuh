// What a launch of task_merge is given.
#pragma once

#include "common/cuda/rules.cuh"
#include "task_merge/cuda.h"

namespace pymerge::cuda {

// Of one model.
template <typename Real>
struct TaskPart {
  MaskRule<Real> rule;
  Real coefficient;
  Real vote;  // the coefficient where no votes are given
  Real weight;
  Real alone;
};

// Models up to which the factors of all sets that may take part are worked out beforehand: a
// division for every element would be the largest cost.
inline constexpr int kTabled = 6;

template <typename Real>
struct TaskParams {
  Units units;
  Output out;
  int n;
  bool has_spread;
  bool normalize;
  bool has_alone;
  bool pick;
  Consensus consensus;
  Real scale;
  Source base;
  Table<Source> tensors;
  Table<TaskPart<Real>> parts;
  Real factors[1 << kTabled];  // of the sum of those models whose bits are set in the index
};

// The launches for tensors of one dtype, with a sum's consensus or none, by what they are compiled
// for; false where these are others.
bool task_merge_bf16(const Stream& stream, const TaskParams<float>& params, std::size_t shared);
bool task_merge_f16(const Stream& stream, const TaskParams<float>& params, std::size_t shared);
// And for all.
void task_merge_any(const Stream& stream, const TaskParams<float>& params, std::size_t shared);
void task_merge_any(const Stream& stream, const TaskParams<double>& params, std::size_t shared);

}  // namespace pymerge::cuda
