// weighted_sum as a combine: fills runs of an output tensor, from mapped files or memory.
#pragma once

#include <vector>

#include "common/combine.h"
#include "weighted_sum/weighted_sum.h"

namespace pymerge {

class WeightedSumCombine : public Combine {
 public:
  WeightedSumCombine(Inputs inputs, Compute compute, DType out_dtype,
                     std::vector<double> coefficients);

 protected:
  bool combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) override;

 private:
  const WeightedSumKernel& kernel_;
  const std::vector<double> coefficients_;
};

// The same with coefficients per line, [n][lines.count]; the inputs may have a base.
class LinesSumCombine : public Combine {
 public:
  LinesSumCombine(Inputs inputs, Compute compute, DType out_dtype, std::vector<double> coefficients,
                  Lines lines);

 protected:
  bool combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) override;

 private:
  const WeightedSumKernel& kernel_;
  const std::vector<double> coefficients_;
  const Lines lines_;
};

}  // namespace pymerge
