#include "task_merge/job.h"

#include <utility>

#include "common/ranked.h"
#include "runtime/isa.h"

namespace pymerge {
namespace {

const double* data_or_null(const std::vector<double>& numbers) {
  return numbers.empty() ? nullptr : numbers.data();
}

}  // namespace

TaskMergeCombine::TaskMergeCombine(Inputs inputs, Compute compute, DType out_dtype,
                                   TaskMergeNumbers numbers)
    : Combine(reach_over_segments(std::move(inputs), numbers.rules), compute, out_dtype),
      kernel_(PYMERGE_SELECT_LEVEL(task_merge, active_isa())),
      numbers_(std::move(numbers)) {}

bool TaskMergeCombine::combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) {
  const TaskMergeArgs args{
      *piece.base,
      piece.tensors,
      numbers_.rules.data(),
      numbers_.coefficients.data(),
      inputs_.size(),
      numbers_.consensus,
      numbers_.weights.data(),
      numbers_.normalize,
      numbers_.scale,
      data_or_null(numbers_.votes),
      data_or_null(numbers_.alone),
      numbers_.pick,
      take_ranked(numbers_.rules, inputs_.count(), piece.starts, scratch),
  };
  return kernel_.fill(args, compute_, piece.range, out_dtype_, out,
                      scratch.take(kernel_.scratch_bytes(inputs_.size())));
}

}  // namespace pymerge
