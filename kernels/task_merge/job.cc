#include "task_merge/job.h"

#include <utility>

#include "runtime/isa.h"

namespace pymerge {
namespace {

const double* data_or_null(const std::vector<double>& numbers) {
  return numbers.empty() ? nullptr : numbers.data();
}

}  // namespace

TaskMergeCombine::TaskMergeCombine(Inputs inputs, Compute compute, DType out_dtype,
                                   TaskMergeNumbers numbers, KeptMasks masks)
    : Combine(reach_over_segments(std::move(inputs), numbers.rules), compute, out_dtype),
      kernel_(PYMERGE_SELECT_LEVEL(task_merge, active_isa())),
      numbers_(std::move(numbers)),
      masks_(std::make_shared<const KeptMasks>(std::move(masks))),
      left_(inputs_.count()) {}

bool TaskMergeCombine::combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) {
  const std::shared_ptr<const KeptMasks> masks = take_masks();
  Drawn drawn = take_drawn(numbers_.rules, inputs_.count(), piece.starts, scratch);
  if (masks != nullptr) drawn.masks = masks->data();
  drawn.known = true;
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
      drawn,
  };
  const bool bad = kernel_.fill(args, compute_, piece.range, out_dtype_, out,
                                scratch.take(kernel_.scratch_bytes(inputs_.size())));
  if ((left_ -= piece.range.count) == 0) {
    const std::lock_guard lock(mutex_);
    masks_ = nullptr;
  }
  return bad;
}

std::shared_ptr<const KeptMasks> TaskMergeCombine::take_masks() {
  const std::lock_guard lock(mutex_);
  return masks_;
}

}  // namespace pymerge
