// A matrix whose rows are taken from other matrices, or are means of theirs. Contract: spec.py.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "io/tensor_view.h"

namespace pymerge {

// Row r of the result is the mean of row rows[k] of part parts[k], starts[r] <= k < starts[r + 1].
struct RowChoice {
  static constexpr std::int64_t kMean = -1;  // in place of a row: the mean of all of the part's

  std::vector<std::int64_t> starts;
  std::vector<std::int64_t> parts;
  std::vector<std::int64_t> rows;
};

class RowsDerived : public Derived {
 public:
  // `parts` are matrices of `width` columns. `dtype`: theirs, if every row is a plain copy or zero
  // and all parts have one; else kF32. Throws if the choice leads out of a part.
  RowsDerived(std::vector<TensorView> parts, RowChoice choice, std::int64_t width, DType dtype);

  std::int64_t count() const { return rows() * width_; }
  void read(Range range, std::byte* out, Scratch& scratch) const override;
  void will_need(Range range) const override;
  void load(std::byte* buffer) const override;

 private:
  std::int64_t rows() const { return static_cast<std::int64_t>(choice_.starts.size()) - 1; }
  // Rows from `row` on that follow each other in one part as they do here; 0 if it is no plain
  // copy.
  std::int64_t run_of(std::int64_t row, std::int64_t end) const;
  void read_decoded(std::int64_t part, Range range, float* out, Scratch& scratch) const;
  void read_mean(std::int64_t row, Range columns, float* out, Scratch& scratch) const;
  const std::vector<float>& mean_of(std::int64_t part, Scratch& scratch) const;

  const std::vector<TensorView> parts_;
  const RowChoice choice_;
  const std::int64_t width_;
  const DType dtype_;
  // Of parts whose mean is asked for.
  mutable std::vector<std::once_flag> found_;
  mutable std::vector<std::vector<float>> means_;
};

}  // namespace pymerge
