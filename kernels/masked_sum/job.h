// masked_sum over whole tensors: one partial per canonical tile and source.
#pragma once

#include <vector>

#include "common/drawn.h"
#include "common/measure.h"
#include "masked_sum/masked_sum.h"

namespace pymerge {

class MaskedSumMeasure : public Measure {
 public:
  // `masks`: where to keep the masks.
  MaskedSumMeasure(Inputs inputs, Compute compute, std::vector<Rule> rules, Norm norm,
                   KeptMasks masks = {});
  // [tiles][n], row-major; the caller adds them up.
  const std::vector<MaskedTotals>& partials() const { return partials_; }

 protected:
  void measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) override;

 private:
  const MaskedSumKernel& kernel_;
  const std::vector<Rule> rules_;
  const Norm norm_;
  const KeptMasks masks_;
  std::vector<MaskedTotals> partials_;
};

}  // namespace pymerge
