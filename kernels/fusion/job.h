// fusion as a combine: fills runs of an output tensor, from mapped files or memory.
#pragma once

#include "common/combine.h"
#include "fusion/fusion.h"

namespace pymerge {

class FusionCombine : public Combine {
 public:
  // `inputs` hold one tensor and the base.
  FusionCombine(Inputs inputs, Compute compute, DType out_dtype, LineNumbers factors,
                double threshold);

 protected:
  bool combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) override;

 private:
  const FusionKernel& kernel_;
  const LineNumbers factors_;
  const double threshold_;
};

}  // namespace pymerge
