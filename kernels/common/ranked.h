// What rules that rank a row's elements need around the kernels: inputs that reach over whole rows,
// and a thread's memory of what it has ranked.
#pragma once

#include <cstdint>
#include <vector>

#include "common/canonical.h"
#include "common/inputs.h"
#include "common/segments.h"
#include "runtime/aligned_buffer.h"

namespace pymerge {

// `inputs`, given out in pieces around which all tensors can be read to the ends of the segments,
// if one of the rules ranks.
Inputs reach_over_segments(Inputs inputs, const std::vector<Rule>& rules);

// For one piece; what was ranked stays at hand until the next pass starts.
Ranked take_ranked(const std::vector<Rule>& rules, std::int64_t count, bool starts,
                   Scratch& scratch);

}  // namespace pymerge
