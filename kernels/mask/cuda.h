// mask on a CUDA device. Contract: spec.py.
#pragma once

#include <cstdint>

#include "common/cuda/inputs.h"
#include "runtime/device.h"

namespace pymerge::cuda {

// Writes the mask of a rule, of the one tensor of `inputs`, which is a task vector.
void mask(const Stream& stream, const Inputs& inputs, const Rule& rule, std::int8_t* out);

}  // namespace pymerge::cuda
