// overlap on a CUDA device. Contract: spec.py.
#pragma once

#include <vector>

#include "common/cuda/inputs.h"
#include "overlap/overlap.h"
#include "runtime/device.h"

namespace pymerge::cuda {

// Of each tensor.
std::vector<OverlapCounts> overlap(const Stream& stream, const Inputs& inputs,
                                   const std::vector<Rule>& rules);

}  // namespace pymerge::cuda
