// task_merge as a combine: fills runs of an output tensor, from mapped files or memory.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "common/combine.h"
#include "common/drawn.h"
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
  // `masks`: those that are known already.
  TaskMergeCombine(Inputs inputs, Compute compute, DType out_dtype, TaskMergeNumbers numbers,
                   KeptMasks masks = {});

 protected:
  bool combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) override;

 private:
  std::shared_ptr<const KeptMasks> take_masks();

  const TaskMergeKernel& kernel_;
  const TaskMergeNumbers numbers_;
  std::mutex mutex_;
  // Until every element was filled once: a combine may live on until its shard is finished.
  std::shared_ptr<const KeptMasks> masks_;
  std::atomic<std::int64_t> left_;
};

}  // namespace pymerge
