// near_swap as a combine: fills runs of an output tensor, from mapped files or memory.
#pragma once

#include "common/combine.h"
#include "near_swap/near_swap.h"

namespace pymerge {

class NearSwapCombine : public Combine {
 public:
  // `inputs` hold one tensor and the base.
  NearSwapCombine(Inputs inputs, Compute compute, DType out_dtype, double t);

 protected:
  bool combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) override;

 private:
  const NearSwapKernel& kernel_;
  const double t_;
};

}  // namespace pymerge
