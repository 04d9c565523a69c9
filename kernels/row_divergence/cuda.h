// row_divergence on a CUDA device. Contract: spec.py.
#pragma once

#include <vector>

#include "common/cuda/inputs.h"
#include "common/lines.h"
#include "runtime/device.h"

namespace pymerge::cuda {

// [rows.count]: of the one tensor and the base.
std::vector<double> row_divergence(const Stream& stream, const Inputs& inputs, const Lines& rows);

}  // namespace pymerge::cuda
