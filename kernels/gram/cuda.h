// gram on a CUDA device. Contract: spec.py.
#pragma once

#include <vector>

#include "common/cuda/inputs.h"
#include "common/lines.h"
#include "runtime/device.h"

namespace pymerge::cuda {

// [tiles][n (n + 1) / 2] partials of the pairs (0, 0), (0, 1), ..., (1, 1), ...
std::vector<double> gram(const Stream& stream, const Inputs& inputs);

// [lines.count][n (n + 1) / 2]; final.
std::vector<double> gram_lines(const Stream& stream, const Inputs& inputs, const Lines& lines);

}  // namespace pymerge::cuda
