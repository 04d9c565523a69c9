// masked_sum on a CUDA device. Contract: spec.py.
#pragma once

#include <vector>

#include "common/cuda/inputs.h"
#include "masked_sum/masked_sum.h"
#include "runtime/device.h"

namespace pymerge::cuda {

// [tiles][n] partials; counts are all in the first tile, and of maxima there is one tile.
std::vector<MaskedTotals> masked_sum(const Stream& stream, const Inputs& inputs,
                                     const std::vector<Rule>& rules, Norm norm);

}  // namespace pymerge::cuda
