// A matrix with low-rank updates added while it is read: what an adapter makes of its model.
// Contract: spec.py.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "io/tensor_view.h"
#include "low_rank/low_rank.h"

namespace pymerge {

// scale * b a, with b [rows][rank] and a [rank][columns]; if `transposed`, the two are stored as
// their transposes, b as [rank][rows] and a as [columns][rank].
struct LowRankUpdate {
  TensorView a;
  TensorView b;
  int rank;
  float scale;
  bool transposed;
};

class LowRankDerived : public Derived {
 public:
  // `base` may be an empty view: zeros. Throws if the shapes do not fit. The result is float32.
  LowRankDerived(TensorView base, std::vector<LowRankUpdate> updates, std::int64_t rows,
                 std::int64_t columns);

  std::int64_t count() const { return rows_ * columns_; }
  void read(Range range, std::byte* out, Scratch& scratch) const override;
  void will_need(Range range) const override;
  void load(std::byte* buffer) const override;

 private:
  struct Factors {
    std::vector<float> a;  // packed
    std::vector<float> b;
  };
  const Factors& factors(std::size_t update, Scratch& scratch) const;
  void add_rows(std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns,
                float* out, Scratch& scratch) const;

  const LowRankKernel& kernel_;
  const TensorView base_;
  const std::vector<LowRankUpdate> updates_;
  const std::int64_t rows_;
  const std::int64_t columns_;
  mutable std::vector<std::once_flag> found_;
  mutable std::vector<Factors> factors_;
};

}  // namespace pymerge
