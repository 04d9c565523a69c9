#include "row_divergence/job.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "runtime/isa.h"

namespace pymerge {
namespace {

// Calls body(segment) for the segments of the row that begins at `begin`, in order.
template <typename Body>
void for_each_segment(std::int64_t begin, std::int64_t length, const Body& body) {
  for (std::int64_t done = 0; done < length; done += kRowSegment) {
    body(Range{begin + done, std::min(kRowSegment, length - done)});
  }
}

int count_halvings(float size) {
  int halvings = 0;
  for (; size > kNearHalved; size /= 2) ++halvings;
  return halvings;
}

}  // namespace

RowDivergenceMeasure::RowDivergenceMeasure(Inputs inputs, Compute compute, Lines lines)
    : Measure(std::move(inputs), compute),
      kernel_(PYMERGE_SELECT_LEVEL(row_divergence, active_isa())),
      lines_(lines),
      rows_per_tile_(std::max<std::int64_t>(1, kTile / lines.length)),
      // A piece ends at a block's end, so a range that starts inside a block loses up to one.
      rows_per_piece_((inputs_.piece_elements() - kBlock) / lines.length),
      divergences_(static_cast<std::size_t>(lines.count)) {}

std::int64_t RowDivergenceMeasure::tiles() const {
  return (lines_.count + rows_per_tile_ - 1) / rows_per_tile_;
}

void RowDivergenceMeasure::run(std::int64_t tile, Scratch& scratch) {
  const std::int64_t end = std::min(lines_.count, (tile + 1) * rows_per_tile_);
  for (std::int64_t row = tile * rows_per_tile_; row < end;) {
    const std::int64_t count = std::min(end - row, std::max<std::int64_t>(1, rows_per_piece_));
    if (rows_per_piece_ == 0) {
      measure_long(row, scratch);
    } else {
      const Range range{row * lines_.length, count * lines_.length};
      inputs_.for_each_piece(range, scratch,
                             [&](const Inputs::Piece& piece) { measure(tile, piece, scratch); });
      bytes_read_ += inputs_.bytes(range);
    }
    row += count;
  }
}

void RowDivergenceMeasure::measure(std::int64_t, const Inputs::Piece& piece, Scratch& scratch) {
  const Operand sides[2] = {piece.tensors[0], *piece.base};
  const std::int64_t end = piece.range.begin + piece.range.count;
  for (std::int64_t begin = piece.range.begin; begin < end; begin += lines_.length) {
    divergences_[static_cast<std::size_t>(begin / lines_.length)] =
        measure_row(begin, scratch, [&](Range) { return sides; });
  }
}

// In copied segments: what was read in place would stay resident between passes.
void RowDivergenceMeasure::measure_long(std::int64_t row, Scratch& scratch) {
  std::vector<Operand> operands;
  Inputs::Piece piece{};
  divergences_[static_cast<std::size_t>(row)] =
      measure_row(row * lines_.length, scratch, [&](Range segment) {
        inputs_.peek(segment, scratch, operands, piece);
        bytes_read_ += inputs_.bytes(segment);
        return piece.tensors;  // the base follows the one tensor
      });
}

template <typename Read>
double RowDivergenceMeasure::measure_row(std::int64_t begin, Scratch& scratch,
                                         const Read& read) const {
  if (compute_ == Compute::kFloat32) {
    if (const auto divergence = measure_near(begin, scratch, read)) return *divergence;
  }
  return measure_far(begin, scratch, read);
}

template <typename Read>
std::optional<double> RowDivergenceMeasure::measure_near(std::int64_t begin, Scratch& scratch,
                                                         const Read& read) const {
  constexpr std::size_t kKept = 2 * kRowSegment * sizeof(float);
  auto* const kept = static_cast<float*>(scratch.take(kKept + kernel_.scratch_bytes));
  void* const work = kept + 2 * kRowSegment;
  const auto keep = [&](Range segment, int halvings, NearRow& row) {
    kernel_.near_mass(read(segment), segment, halvings, row, kept, work);
  };
  NearRow row;
  // Few rows need their base halved, so whether this one does comes out on the way.
  for (int halvings = 0;;) {
    row = {};
    for_each_segment(begin, lines_.length, [&](Range part) { keep(part, halvings, row); });
    // The largest ones pass over what is NaN; the sums do not.
    if (!(row.move <= kNearMove && row.size <= kNearSize && std::isfinite(row.mass) &&
          std::isfinite(row.shift))) {
      return std::nullopt;
    }
    if (halvings == count_halvings(row.size)) break;
    halvings = count_halvings(row.size);
  }
  for_each_segment(begin, lines_.length, [&](Range part) {
    NearRow again;
    if (lines_.length > kRowSegment) keep(part, count_halvings(row.size), again);
    kernel_.near_divergence(kept, part.count, row);
  });
  return row.divergence;
}

template <typename Read>
double RowDivergenceMeasure::measure_far(std::int64_t begin, Scratch& scratch,
                                         const Read& read) const {
  constexpr double kLeast = -std::numeric_limits<double>::infinity();
  FarRow row{{kLeast, kLeast}};
  for (const auto pass : {kernel_.greatest, kernel_.mass, kernel_.divergence}) {
    for_each_segment(begin, lines_.length, [&](Range segment) {
      pass(read(segment), segment, row, scratch.take(kernel_.scratch_bytes));
    });
  }
  // A mass is NaN where an element or the greatest one was not finite.
  if (!(row.mass[0] > 0 && row.mass[1] > 0)) return std::numeric_limits<double>::quiet_NaN();
  return row.divergence > 0 ? row.divergence : 0.0;
}

}  // namespace pymerge
