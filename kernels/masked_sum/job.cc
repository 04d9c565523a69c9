#include "masked_sum/job.h"

#include <utility>

#include "common/ranked.h"
#include "runtime/isa.h"

namespace pymerge {

MaskedSumMeasure::MaskedSumMeasure(Inputs inputs, Compute compute, std::vector<Rule> rules,
                                   Norm norm)
    : Measure(reach_over_segments(std::move(inputs), rules), compute),
      kernel_(PYMERGE_SELECT_LEVEL(masked_sum, active_isa())),
      rules_(std::move(rules)),
      norm_(norm),
      partials_(static_cast<std::size_t>(tiles() * inputs_.size())) {}

void MaskedSumMeasure::measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) {
  const Ranked ranked = take_ranked(rules_, inputs_.count(), piece.starts, scratch);
  kernel_.add(piece.tensors, rules_.data(), inputs_.size(), piece.base, ranked, norm_, compute_,
              piece.range, partials_.data() + tile * inputs_.size(),
              scratch.take(kernel_.scratch_bytes));
}

}  // namespace pymerge
