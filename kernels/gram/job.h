// gram over whole tensors: one partial per canonical tile and pair.
#pragma once

#include <vector>

#include "common/measure.h"
#include "gram/gram.h"

namespace pymerge {

// Whether every product is exact in float32.
bool is_narrow(const Inputs& inputs);

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
  const bool narrow_;
  std::vector<double> partials_;
};

// gram of every row, or of every column.
class GramLinesMeasure : public Measure {
 public:
  GramLinesMeasure(Inputs inputs, Compute compute, Lines lines);
  std::int64_t tiles() const override;
  // [lines][n (n + 1) / 2], row-major; final.
  std::vector<double> sums() const;

 protected:
  void measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) override;
  Range tile_range(std::int64_t tile) const override;

 private:
  const GramKernel& kernel_;
  const Lines lines_;
  const std::int64_t pairs_;
  const std::int64_t group_;  // elements of a group of rows, where lines are columns
  const bool narrow_;
  // Rows: [rows][pairs], but for what lies in later tiles than a row's first; that is in edges_,
  // [tiles][pairs]. Columns: [groups][pairs][columns].
  std::vector<double> sums_;
  std::vector<double> edges_;
};

}  // namespace pymerge
