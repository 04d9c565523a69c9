// What a recipe says of a task_merge, on any device. Contract: spec.py.
#pragma once

#include <vector>

#include "task_merge/task_merge.h"

namespace pymerge {

struct TaskMergeNumbers {
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

}  // namespace pymerge
