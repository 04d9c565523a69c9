// task_merge as a combine: fills runs of an output tensor, from mapped files or memory.
#pragma once

#include <vector>

#include "common/combine.h"
#include "task_merge/task_merge.h"

namespace pymerge {

struct TaskMergeNumbers {
  std::vector<Rule> rules;
  std::vector<double> coefficients;
  Consensus consensus = Consensus::kNone;
  std::vector<double> weights;
  bool normalize = false;
  double scale = 1;
  std::vector<double> votes;
  std::vector<double> alone;
  bool pick = false;
};

class TaskMergeCombine : public Combine {
 public:
  TaskMergeCombine(Inputs inputs, Compute compute, DType out_dtype, TaskMergeNumbers numbers);

 protected:
  bool combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) override;

 private:
  const TaskMergeKernel& kernel_;
  const TaskMergeNumbers numbers_;
};

}  // namespace pymerge
