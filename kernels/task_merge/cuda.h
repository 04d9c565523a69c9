// task_merge on a CUDA device. Contract: spec.py.
#pragma once

#include "common/cuda/inputs.h"
#include "runtime/device.h"
#include "task_merge/numbers.h"

namespace pymerge::cuda {

// Writes the base plus the merged task vectors; returns when that is on the stream.
void task_merge(const Stream& stream, const Inputs& inputs, const TaskMergeNumbers& numbers,
                const Output& out);

}  // namespace pymerge::cuda
