// weighted_sum as a combine: fills runs of an output tensor, from mapped files or memory.
#pragma once

#include <vector>

#include "common/combine.h"
#include "weighted_sum/weighted_sum.h"

namespace pymerge {

class WeightedSumCombine : public Combine {
 public:
  // `coefficients`: one for each of a tensor's lines, [n][lines.count]. The inputs may have a base.
  WeightedSumCombine(Inputs inputs, Compute compute, DType out_dtype,
                     std::vector<double> coefficients, Lines lines);

 protected:
  bool combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) override;

 private:
  const WeightedSumKernel& kernel_;
  const std::vector<double> coefficients_;
  const Lines lines_;
};

}  // namespace pymerge
