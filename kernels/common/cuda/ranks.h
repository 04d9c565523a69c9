// Masks by rank on a CUDA device: what is kept of rows whose elements' chances go by their rank.
// Contract: ranks.py.
#pragma once

#include <cstdint>
#include <vector>

#include "common/cuda/inputs.h"
#include "runtime/device.h"

namespace pymerge::cuda {

// The masks of a call's rules that go by rank, a bit an element, the first of a word its least;
// null for other rules. They are there for what comes after on the stream, as long as this is.
class RankMasks {
 public:
  RankMasks(const Stream& stream, const Inputs& inputs, const std::vector<Rule>& rules);
  const std::uint32_t* operator[](std::size_t model) const { return masks_[model].data(); }

 private:
  std::vector<DeviceArray<std::uint32_t>> masks_;
};

}  // namespace pymerge::cuda
