// weighted_sum on a CUDA device. Contract: spec.py.
#pragma once

#include <vector>

#include "common/cuda/inputs.h"
#include "common/lines.h"
#include "runtime/device.h"

namespace pymerge::cuda {

// Writes the sum of the tensors times their coefficients; returns when that is on the stream.
void weighted_sum(const Stream& stream, const Inputs& inputs,
                  const std::vector<double>& coefficients, const Output& out);

// The same with coefficients [n][lines.count], around the base if there is one.
void weighted_sum_lines(const Stream& stream, const Inputs& inputs,
                        const std::vector<double>& coefficients, const Lines& lines,
                        const Output& out);

}  // namespace pymerge::cuda
