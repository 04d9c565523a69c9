#include "weighted_sum/job.h"

#include <utility>

#include "runtime/isa.h"

namespace pymerge {

WeightedSumCombine::WeightedSumCombine(Inputs inputs, Compute compute, DType out_dtype,
                                       std::vector<double> coefficients, Lines lines)
    : Combine(std::move(inputs), compute, out_dtype),
      kernel_(PYMERGE_SELECT_LEVEL(weighted_sum, active_isa())),
      coefficients_(std::move(coefficients)),
      lines_(lines) {}

bool WeightedSumCombine::combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) {
  return kernel_.fill(piece.tensors, inputs_.size(), piece.base, coefficients_.data(), lines_,
                      compute_, piece.range, out_dtype_, out, scratch.take(kernel_.scratch_bytes));
}

}  // namespace pymerge
