// row_divergence over whole tensors: a few rows at a time, as many as a cached piece holds.
#pragma once

#include <optional>
#include <vector>

#include "common/lines.h"
#include "common/measure.h"
#include "row_divergence/row_divergence.h"

namespace pymerge {

class RowDivergenceMeasure : public Measure {
 public:
  // `inputs` hold one tensor and the base; `lines` are their rows.
  RowDivergenceMeasure(Inputs inputs, Compute compute, Lines lines);

  std::int64_t tiles() const override;
  void run(std::int64_t tile, Scratch& scratch) override;
  // One per row.
  const std::vector<double>& divergences() const { return divergences_; }

 protected:
  void measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) override;

 private:
  // `read(segment)`: the two sides, valid until it is called again.
  template <typename Read>
  double measure_row(std::int64_t begin, Scratch& scratch, const Read& read) const;
  template <typename Read>
  std::optional<double> measure_near(std::int64_t begin, Scratch& scratch, const Read& read) const;
  template <typename Read>
  double measure_far(std::int64_t begin, Scratch& scratch, const Read& read) const;
  void measure_long(std::int64_t row, Scratch& scratch);

  const RowDivergenceKernel& kernel_;
  const Lines lines_;
  const std::int64_t rows_per_tile_;
  const std::int64_t rows_per_piece_;  // 0: a row is longer than a piece
  std::vector<double> divergences_;
};

}  // namespace pymerge
