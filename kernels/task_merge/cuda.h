// task_merge on a CUDA device. Contract: spec.py.
#pragma once

#include <vector>

#include "common/cuda/inputs.h"
#include "runtime/device.h"
#include "task_merge/task_merge.h"

namespace pymerge::cuda {

struct TaskNumbers {
  std::vector<Rule> rules;
  std::vector<double> coefficients;
  Consensus consensus = Consensus::kNone;
  // Read only with a consensus; weights if normalize, votes and alone may be empty.
  std::vector<double> weights;
  bool normalize = false;
  double scale = 1;
  std::vector<double> votes;
  std::vector<double> alone;
  bool pick = false;
};

// Writes the base plus the merged task vectors; returns when that is on the stream.
void task_merge(const Stream& stream, const Inputs& inputs, const TaskNumbers& numbers,
                const Output& out);

}  // namespace pymerge::cuda
