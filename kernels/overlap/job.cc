#include "overlap/job.h"

#include <utility>

#include "runtime/isa.h"

namespace pymerge {

OverlapMeasure::OverlapMeasure(Inputs inputs, Compute compute, std::vector<Rule> rules)
    : Measure(std::move(inputs), compute),
      kernel_(PYMERGE_SELECT_LEVEL(overlap, active_isa())),
      rules_(std::move(rules)),
      partials_(static_cast<std::size_t>(tiles() * inputs_.size())) {}

void OverlapMeasure::measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) {
  kernel_.add(piece.tensors, rules_.data(), inputs_.size(), piece.base, compute_, piece.range,
              partials_.data() + tile * inputs_.size(),
              scratch.take(kernel_.scratch_bytes(inputs_.size())));
}

}  // namespace pymerge
