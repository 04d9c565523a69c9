// fusion on a CUDA device. Contract: spec.py.
#pragma once

#include <vector>

#include "common/cuda/inputs.h"
#include "common/lines.h"
#include "runtime/device.h"

namespace pymerge::cuda {

// `inputs` hold one tensor and the base; a factor for each line. Returns when the work is on the
// stream.
void fusion(const Stream& stream, const Inputs& inputs, const std::vector<double>& factors,
            const Lines& lines, double threshold, const Output& out);

}  // namespace pymerge::cuda
