// overlap over whole tensors: counts per tile and source.
#pragma once

#include <vector>

#include "common/measure.h"
#include "overlap/overlap.h"

namespace pymerge {

class OverlapMeasure : public Measure {
 public:
  OverlapMeasure(Inputs inputs, Compute compute, std::vector<Rule> rules);
  // [tiles][n], row-major; the caller adds them up.
  const std::vector<OverlapCounts>& partials() const { return partials_; }

 protected:
  void measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) override;

 private:
  const OverlapKernel& kernel_;
  const std::vector<Rule> rules_;
  std::vector<OverlapCounts> partials_;
};

}  // namespace pymerge
