#include "gram/job.h"

#include <algorithm>
#include <utility>

#include "runtime/isa.h"

namespace pymerge {

bool is_narrow(const Inputs& inputs) {
  return !inputs.has_base() &&
         std::all_of(inputs.tensors().begin(), inputs.tensors().end(), [](const auto& tensor) {
           return tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF16;
         });
}

GramMeasure::GramMeasure(Inputs inputs, Compute compute)
    : Measure(std::move(inputs), compute),
      kernel_(PYMERGE_SELECT_LEVEL(gram, active_isa())),
      pairs_(inputs_.size() * (inputs_.size() + 1) / 2),
      narrow_(is_narrow(inputs_)),
      partials_(static_cast<std::size_t>(tiles() * pairs_), 0.0) {}

void GramMeasure::measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) {
  kernel_.add(piece.tensors, inputs_.size(), piece.base, compute_, narrow_, piece.range,
              partials_.data() + tile * pairs_,
              scratch.take(kernel_.scratch_bytes(inputs_.size())));
}

GramLinesMeasure::GramLinesMeasure(Inputs inputs, Compute compute, Lines lines)
    : Measure(std::move(inputs), compute),
      kernel_(PYMERGE_SELECT_LEVEL(gram, active_isa())),
      lines_(lines),
      pairs_(inputs_.size() * (inputs_.size() + 1) / 2),
      group_(group_rows(lines) * lines.count),
      narrow_(is_narrow(inputs_)),
      sums_(static_cast<std::size_t>(lines.count * pairs_ * (lines.strided ? tiles() : 1)), 0.0),
      edges_(static_cast<std::size_t>(lines.strided ? 0 : tiles() * pairs_), 0.0) {}

std::int64_t GramLinesMeasure::tiles() const {
  return lines_.strided ? std::max<std::int64_t>(1, (inputs_.count() + group_ - 1) / group_)
                        : Measure::tiles();
}

Range GramLinesMeasure::tile_range(std::int64_t tile) const {
  if (!lines_.strided) return Measure::tile_range(tile);
  return {tile * group_, std::min(group_, inputs_.count() - tile * group_)};
}

void GramLinesMeasure::measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) {
  const int n = inputs_.size();
  void* const space = scratch.take(kernel_.scratch_bytes(n));
  if (lines_.strided) {
    kernel_.add_columns(piece.tensors, n, piece.base, compute_, piece.range, lines_,
                        sums_.data() + tile * pairs_ * lines_.count, space);
  } else {
    kernel_.add_rows(piece.tensors, n, piece.base, compute_, narrow_, piece.range, lines_,
                     tile * kTile, sums_.data(), edges_.data() + tile * pairs_, space);
  }
}

std::vector<double> GramLinesMeasure::sums() const {
  std::vector<double> total(static_cast<std::size_t>(lines_.count * pairs_), 0.0);
  if (lines_.strided) {
    for (std::int64_t tile = 0; tile < tiles(); ++tile) {
      const double* part = sums_.data() + tile * pairs_ * lines_.count;
      for (std::int64_t pair = 0; pair < pairs_; ++pair) {
        for (std::int64_t line = 0; line < lines_.count; ++line) {
          total[static_cast<std::size_t>(line * pairs_ + pair)] += *part++;
        }
      }
    }
    return total;
  }
  total = sums_;
  for (std::int64_t tile = 0; tile < tiles(); ++tile) {
    const std::int64_t row = tile * kTile / std::max<std::int64_t>(1, lines_.length);
    if (row >= lines_.count || row * lines_.length == tile * kTile) continue;
    for (std::int64_t pair = 0; pair < pairs_; ++pair) {
      total[static_cast<std::size_t>(row * pairs_ + pair)] +=
          edges_[static_cast<std::size_t>(tile * pairs_ + pair)];
    }
  }
  return total;
}

}  // namespace pymerge
