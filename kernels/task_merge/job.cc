#include "task_merge/job.h"

#include <utility>

#include "runtime/isa.h"

namespace pymerge {

TaskMergeCombine::TaskMergeCombine(Inputs inputs, Compute compute, DType out_dtype,
                                   TaskMergeNumbers numbers)
    : Combine(std::move(inputs), compute, out_dtype),
      kernel_(PYMERGE_SELECT_LEVEL(task_merge, active_isa())),
      numbers_(std::move(numbers)) {}

bool TaskMergeCombine::combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) {
  const TaskMergeArgs args{
      *piece.base,
      piece.tensors,
      numbers_.rules.data(),
      numbers_.coefficients.data(),
      numbers_.weights.data(),
      inputs_.size(),
      numbers_.elect,
      numbers_.normalize,
      numbers_.scale,
  };
  return kernel_.fill(args, compute_, piece.range, out_dtype_, out,
                      scratch.take(kernel_.scratch_bytes(inputs_.size())));
}

}  // namespace pymerge
