#include "near_swap/job.h"

#include <utility>

#include "runtime/isa.h"

namespace pymerge {

NearSwapCombine::NearSwapCombine(Inputs inputs, Compute compute, DType out_dtype, double t)
    : Combine(std::move(inputs), compute, out_dtype),
      kernel_(PYMERGE_SELECT_LEVEL(near_swap, active_isa())),
      t_(t) {}

bool NearSwapCombine::combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) {
  return kernel_.fill(piece.tensors[0], *piece.base, t_, compute_, piece.range, out_dtype_, out,
                      scratch.take(kernel_.scratch_bytes));
}

}  // namespace pymerge
