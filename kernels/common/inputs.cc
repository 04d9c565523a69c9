#include "common/inputs.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/segments.h"

namespace pymerge {
namespace {

// Read ahead in steps of kStep elements, kAhead of them in front of the first reader. 8 Mi bf16
// elements are 16 MiB: two default readahead windows of a 2026 kernel, so a disk never idles.
constexpr std::int64_t kStep = 4 << 20;
constexpr std::int64_t kAhead = 2;
// Pages read in place are let go in windows of this many elements, when the last of them is read:
// 4 MiB of bf16. Letting go of less than a huge page (2 MiB) splits it: 0.12 s of CPU a GB, not
// 0.034.
constexpr std::int64_t kWindow = 2 << 20;
// All tensors' pieces together: half of a 1 MiB second-level cache, since some kernels go over a
// piece once a source.
constexpr std::int64_t kPiece = 512 << 10;

}  // namespace

Inputs::Inputs(std::vector<TensorView> tensors, TensorView base)
    : tensors_(std::move(tensors)), base_(std::move(base)) {
  each([](const TensorView& view) { view.will_need({0, std::min(view.count, kStep * kAhead)}); });
  const std::int64_t windows = (count() + kWindow - 1) / kWindow;
  left_ = std::make_unique<std::atomic<std::int64_t>[]>(static_cast<std::size_t>(windows));
  for (std::int64_t w = 0; w < windows; ++w) {
    left_[static_cast<std::size_t>(w)] = std::min(kWindow, count() - w * kWindow);
  }
}

std::int64_t Inputs::bytes(Range range) const {
  std::int64_t total = 0;
  each([&](const TensorView& view) { total += range.count * item_size(view.dtype); });
  return total;
}

std::int64_t Inputs::piece_unit() const {
  const std::int64_t most = kPiece / bytes({0, 1});
  if (row_ == 0 || row_ > most) return kBlock;
  const std::int64_t both = std::lcm(row_, kBlock);
  return both <= most ? both : kBlock;
}

std::int64_t Inputs::piece_elements() const {
  const std::int64_t unit = piece_unit();
  return std::max(unit, kPiece / bytes({0, 1}) / unit * unit);
}

void Inputs::ask_ahead(Range range) const {
  // Once per step: where this range crosses (or touches) a step's first element.
  const std::int64_t step = (range.begin + range.count - 1) / kStep;
  if (step == 0 || step * kStep < range.begin) return;
  const std::int64_t ahead = (step + kAhead - 1) * kStep;
  each([&](const TensorView& view) {
    if (ahead < view.count) view.will_need({ahead, std::min(kStep, view.count - ahead)});
  });
}

void Inputs::let_go(Range range) const {
  const std::int64_t end = range.begin + range.count;
  for (std::int64_t at = range.begin; at < end;) {
    const std::int64_t window = at / kWindow;
    const std::int64_t begin = window * kWindow;
    const std::int64_t size = std::min(kWindow, count() - begin);
    const std::int64_t part = std::min(end, begin + size) - at;
    std::atomic<std::int64_t>& left = left_[static_cast<std::size_t>(window)];
    if (left.fetch_sub(part) == part) {
      left = size;  // for the next pass
      // Whoever ranked this window's first row read what of it lies in the window before.
      const std::int64_t from = row_ == 0 ? begin : segment_of(begin, row_, count()).begin;
      each([&](const TensorView& view) {
        if (view.is_cheap_in_place()) view.done_with({from, begin + size - from});
      });
    }
    at += part;
  }
}

void Inputs::peek(Range range, Scratch& scratch, std::vector<Operand>& operands, Piece& piece,
                  int only) const {
  std::byte* copy = scratch.take_copies(static_cast<std::size_t>(bytes(range)));
  operands.clear();
  each([&](const TensorView& view) {
    const auto index = static_cast<int>(operands.size());
    operands.push_back(view.operand());
    if (view.is_in_memory() || (only >= 0 && index != only && index != size())) return;
    view.read(range, copy, scratch);
    operands.back() = {copy, view.dtype, range.begin};
    copy += range.count * item_size(view.dtype);
  });
  piece = {range, operands.data(), has_base() ? &operands.back() : nullptr};
}

Inputs::Pieces::Pieces(const Inputs& inputs, Range range, Scratch& scratch)
    : inputs_(inputs),
      range_(range),
      scratch_(scratch),
      at_(range.begin),
      unit_(inputs.piece_unit()),
      step_(inputs.piece_elements()),
      room_(step_ + 2 * std::min(inputs.row_, kSegment)) {
  inputs_.ask_ahead(range_);
  std::int64_t copied = 0;  // bytes an element
  inputs_.each([&](const TensorView& view) {
    operands_.push_back(view.operand());
    in_place_.push_back(view.is_cheap_in_place());
    if (!in_place_.back()) copied += item_size(view.dtype);
  });
  copies_ = scratch.take_copies(static_cast<std::size_t>(room_ * copied));
  piece_.tensors = operands_.data();
  piece_.base = inputs_.has_base() ? &operands_.back() : nullptr;
}

Inputs::Pieces::~Pieces() { inputs_.let_go(range_); }

bool Inputs::Pieces::next() {
  const std::int64_t end = range_.begin + range_.count;
  if (at_ >= end) {
    inputs_.each([](const TensorView& view) { view.check_whole(); });
    return false;
  }
  // To a block's end, so that no canonical block is cut.
  const std::int64_t stop = std::min(end, at_ / unit_ * unit_ + step_);
  piece_.starts = at_ == range_.begin;
  piece_.range = {at_, stop - at_};
  const Range whole = inputs_.row_ == 0
                          ? piece_.range
                          : whole_segments(piece_.range, inputs_.row_, inputs_.count());
  std::byte* copy = copies_;
  std::size_t index = 0;
  inputs_.each([&](const TensorView& view) {
    if (!in_place_[index]) {
      view.read(whole, copy, scratch_);
      operands_[index] = {copy, view.dtype, whole.begin};
      copy += room_ * item_size(view.dtype);
    }
    ++index;
  });
  at_ = stop;
  return true;
}

}  // namespace pymerge
