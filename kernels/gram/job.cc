#include "gram/job.h"

#include <algorithm>
#include <utility>

#include "runtime/isa.h"

namespace pymerge {

GramMeasure::GramMeasure(Inputs inputs, Compute compute)
    : Measure(std::move(inputs), compute),
      kernel_(PYMERGE_SELECT_LEVEL(gram, active_isa())),
      pairs_(inputs_.size() * (inputs_.size() + 1) / 2),
      partials_(static_cast<std::size_t>(tiles() * pairs_), 0.0) {
  narrow_ = !inputs_.has_base() &&
            std::all_of(inputs_.tensors().begin(), inputs_.tensors().end(), [](const auto& tensor) {
              return tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF16;
            });
}

void GramMeasure::measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) {
  kernel_.add(piece.tensors, inputs_.size(), piece.base, compute_, narrow_, piece.range,
              partials_.data() + tile * pairs_,
              scratch.take(kernel_.scratch_bytes(inputs_.size())));
}

}  // namespace pymerge
