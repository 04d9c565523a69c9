// task_merge as a combine: fills runs of an output tensor, from mapped files or memory.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "common/combine.h"
#include "common/drawn.h"
#include "task_merge/numbers.h"

namespace pymerge {

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
