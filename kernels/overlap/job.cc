#include "overlap/job.h"

#include <utility>

#include "common/drawn.h"
#include "runtime/isa.h"

namespace pymerge {

OverlapMeasure::OverlapMeasure(Inputs inputs, Compute compute, std::vector<Rule> rules)
    : Measure(reach_over_segments(std::move(inputs), rules), compute),
      kernel_(PYMERGE_SELECT_LEVEL(overlap, active_isa())),
      rules_(std::move(rules)),
      partials_(static_cast<std::size_t>(tiles() * inputs_.size())) {}

void OverlapMeasure::measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) {
  const Drawn drawn = take_drawn(rules_, inputs_.count(), piece.starts, scratch);
  kernel_.add(piece.tensors, rules_.data(), inputs_.size(), piece.base, drawn, compute_,
              piece.range, partials_.data() + tile * inputs_.size(),
              scratch.take(kernel_.scratch_bytes(inputs_.size())));
}

}  // namespace pymerge
