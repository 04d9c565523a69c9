#include "low_rank/derived.h"

#include <algorithm>
#include <utility>

#include "common/read_floats.h"
#include "core/error.h"
#include "runtime/isa.h"

namespace pymerge {
namespace {

std::vector<float> read_matrix(const TensorView& view, std::int64_t rows, std::int64_t columns,
                               bool transposed, Scratch& scratch) {
  std::vector<float> stored(static_cast<std::size_t>(rows * columns));
  read_floats(view, {0, view.count}, stored.data(), scratch);
  if (!transposed) return stored;
  std::vector<float> turned(stored.size());
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      turned[static_cast<std::size_t>(r * columns + c)] =
          stored[static_cast<std::size_t>(c * rows + r)];
    }
  }
  return turned;
}

// [rank][columns] in tiles, as the kernel takes it.
std::vector<float> pack(const std::vector<float>& matrix, std::int64_t rank, std::int64_t columns) {
  const std::int64_t tiles = (columns + kTileColumns - 1) / kTileColumns;
  std::vector<float> packed(static_cast<std::size_t>(tiles * rank * kTileColumns));
  for (std::int64_t j = 0; j < rank; ++j) {
    for (std::int64_t c = 0; c < columns; ++c) {
      const std::int64_t tile = c / kTileColumns;
      packed[static_cast<std::size_t>((tile * rank + j) * kTileColumns + c - tile * kTileColumns)] =
          matrix[static_cast<std::size_t>(j * columns + c)];
    }
  }
  return packed;
}

}  // namespace

LowRankDerived::LowRankDerived(TensorView base, std::vector<LowRankUpdate> updates,
                               std::int64_t rows, std::int64_t columns)
    : kernel_(PYMERGE_SELECT_LEVEL(low_rank, active_isa())),
      base_(std::move(base)),
      updates_(std::move(updates)),
      rows_(rows),
      columns_(columns),
      found_(updates_.size()),
      factors_(updates_.size()) {
  const auto refuse = [] { throw Error(ErrorCode::kInternal, "a low-rank update does not fit"); };
  if (rows_ < 1 || columns_ < 1 || (base_.exists() && base_.count != rows_ * columns_)) refuse();
  for (const LowRankUpdate& update : updates_) {
    if (update.rank < 1 || update.a.count != update.rank * columns_ ||
        update.b.count != update.rank * rows_ || !is_mergeable(update.a.dtype) ||
        !is_mergeable(update.b.dtype)) {
      refuse();
    }
  }
}

const LowRankDerived::Factors& LowRankDerived::factors(std::size_t index, Scratch& scratch) const {
  std::call_once(found_[index], [&] {
    const LowRankUpdate& update = updates_[index];
    factors_[index] = {
        pack(read_matrix(update.a, update.rank, columns_, update.transposed, scratch), update.rank,
             columns_),
        read_matrix(update.b, rows_, update.rank, update.transposed, scratch),
    };
  });
  return factors_[index];
}

void LowRankDerived::add_rows(std::int64_t row, std::int64_t rows, std::int64_t column,
                              std::int64_t columns, float* out, Scratch& scratch) const {
  for (std::size_t i = 0; i < updates_.size(); ++i) {
    const Factors& found = factors(i, scratch);
    const int rank = updates_[i].rank;
    kernel_.add(found.a.data(), found.b.data() + row * rank, rank, updates_[i].scale, rows, column,
                columns, out, columns_);
  }
}

void LowRankDerived::read(Range range, std::byte* out, Scratch& scratch) const {
  auto* to = reinterpret_cast<float*>(out);
  if (base_.exists()) {
    read_floats(base_, range, to, scratch);
  } else {
    std::fill(to, to + range.count, 0.0f);
  }
  const std::int64_t end = range.begin + range.count;
  for (std::int64_t at = range.begin; at < end;) {
    const std::int64_t row = at / columns_;
    const std::int64_t column = at - row * columns_;
    // Whole rows together; what is left of one before them, what is begun of one behind them.
    const std::int64_t rows = column == 0 ? std::max<std::int64_t>((end - at) / columns_, 1) : 1;
    const std::int64_t columns = rows > 1 ? columns_ : std::min(columns_ - column, end - at);
    add_rows(row, rows, column, columns, to, scratch);
    to += rows > 1 ? rows * columns_ : columns;
    at += rows > 1 ? rows * columns_ : columns;
  }
}

void LowRankDerived::will_need(Range range) const {
  base_.will_need(range);
  if (range.begin > 0) return;
  for (const LowRankUpdate& update : updates_) {
    update.a.will_need({0, update.a.count});
    update.b.will_need({0, update.b.count});
  }
}

void LowRankDerived::load(std::byte* buffer) const {
  base_.load(buffer);
  for (const LowRankUpdate& update : updates_) {
    update.a.load(buffer);
    update.b.load(buffer);
  }
}

}  // namespace pymerge
