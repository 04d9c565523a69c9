#include "fusion/job.h"

#include <utility>

#include "runtime/isa.h"

namespace pymerge {

FusionCombine::FusionCombine(Inputs inputs, Compute compute, DType out_dtype, LineNumbers factors,
                             double threshold)
    : Combine(std::move(inputs), compute, out_dtype),
      kernel_(PYMERGE_SELECT_LEVEL(fusion, active_isa())),
      factors_(std::move(factors)),
      threshold_(threshold) {}

bool FusionCombine::combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) {
  return kernel_.fill(piece.tensors[0], *piece.base, factors_.view(), threshold_, compute_,
                      piece.range, out_dtype_, out, scratch.take(kernel_.scratch_bytes));
}

}  // namespace pymerge
