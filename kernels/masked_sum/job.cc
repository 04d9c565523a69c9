#include "masked_sum/job.h"

#include <utility>

#include "runtime/isa.h"

namespace pymerge {

MaskedSumMeasure::MaskedSumMeasure(Inputs inputs, Compute compute, std::vector<Rule> rules,
                                   Norm norm, KeptMasks masks)
    : Measure(reach_over_segments(std::move(inputs), rules), compute),
      kernel_(PYMERGE_SELECT_LEVEL(masked_sum, active_isa())),
      rules_(std::move(rules)),
      norm_(norm),
      masks_(std::move(masks)),
      partials_(static_cast<std::size_t>(tiles() * inputs_.size())) {}

void MaskedSumMeasure::measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) {
  Drawn drawn = take_drawn(rules_, inputs_.count(), piece.starts, scratch);
  drawn.masks = masks_.data();
  kernel_.add(piece.tensors, rules_.data(), inputs_.size(), piece.base, drawn, norm_, compute_,
              piece.range, partials_.data() + tile * inputs_.size(),
              scratch.take(kernel_.scratch_bytes));
}

}  // namespace pymerge
