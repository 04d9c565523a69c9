// near_swap on a CUDA device. Contract: spec.py.
#pragma once

#include "common/cuda/inputs.h"
#include "runtime/device.h"

namespace pymerge::cuda {

// `inputs` hold one tensor and the base. Returns when the work is on the stream.
void near_swap(const Stream& stream, const Inputs& inputs, double t, const Output& out);

}  // namespace pymerge::cuda
