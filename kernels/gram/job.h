// gram over whole tensors: one partial per canonical tile and pair.
#pragma once

#include <vector>

#include "common/measure.h"
#include "gram/gram.h"

namespace pymerge {

class GramMeasure : public Measure {
 public:
  GramMeasure(Inputs inputs, Compute compute);
  // [tiles][n (n + 1) / 2], row-major; the caller adds them up.
  const std::vector<double>& partials() const { return partials_; }
  int pairs() const { return pairs_; }

 protected:
  void measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) override;

 private:
  const GramKernel& kernel_;
  const int pairs_;
  bool narrow_;
  std::vector<double> partials_;
};

}  // namespace pymerge
