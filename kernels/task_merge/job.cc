#include "task_merge/job.h"

#include <utility>

#include "runtime/isa.h"

namespace pymerge {

TaskMergeCombine::TaskMergeCombine(Inputs inputs, Compute compute, DType out_dtype,
                                   TaskMergeNumbers numbers)
    : Combine(std::move(inputs), compute, out_dtype),
      kernel_(PYMERGE_SELECT_LEVEL(task_merge, active_isa())),
      numbers_(std::move(numbers)),
      args_{*inputs_.base(),         inputs_.operands(),
            numbers_.rules.data(),   numbers_.coefficients.data(),
            numbers_.weights.data(), inputs_.size(),
            numbers_.elect,          numbers_.normalize,
            numbers_.scale} {}

bool TaskMergeCombine::combine(Range range, std::byte* out, Scratch& scratch) {
  return kernel_.fill(args_, compute_, range, out_dtype_, out,
                      scratch.take(kernel_.scratch_bytes(inputs_.size())));
}

}  // namespace pymerge
