#include "select/counts.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/isa.h"

namespace pymerge {
namespace {

std::size_t work_bytes(const SelectKernel& kernel) { return (kernel.scratch_bytes + 63) / 64 * 64; }

}  // namespace

KeyCountsMeasure::KeyCountsMeasure(Inputs inputs, Compute compute, std::vector<std::uint64_t> lows,
                                   int shift, std::int64_t buckets, bool open)
    : Measure(std::move(inputs), compute),
      kernel_(PYMERGE_SELECT_LEVEL(select, active_isa())),
      lows_(std::move(lows)),
      shift_(shift),
      buckets_(static_cast<std::size_t>(buckets)),
      open_(open),
      counts_(lows_.size() * (buckets_ + (open ? 1 : 0))) {}

void KeyCountsMeasure::measure(std::int64_t, const Inputs::Piece& piece, Scratch& scratch) {
  std::vector<SelectEntry> entries(lows_.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    entries[i].tensor = piece.tensors[i];
    entries[i].low = lows_[i];
    entries[i].high = lows_[i] + width() - 1;
    entries[i].shift = shift_;
  }
  // Buckets of single keys span few of all keys, and what is above them only a scan counts.
  open_ || shift_ == 0 ? count_few(entries, piece, scratch) : count_all(entries, piece, scratch);
}

// Each piece is counted on its own, then added: threads would wait for each other at the few
// buckets that most keys are in.
void KeyCountsMeasure::count_all(std::vector<SelectEntry>& entries, const Inputs::Piece& piece,
                                 Scratch& scratch) {
  const std::size_t work = work_bytes(kernel_);
  const std::size_t size = counts_.size() * sizeof(std::uint32_t);
  auto* memory = static_cast<std::byte*>(scratch.take(work + size));
  auto* mine = reinterpret_cast<std::uint32_t*>(memory + work);
  std::fill(mine, mine + counts_.size(), 0u);
  for (std::size_t i = 0; i < entries.size(); ++i) entries[i].buckets = mine + i * buckets_;
  kernel_.histogram_alone(entries.data(), static_cast<int>(entries.size()), piece.base, {},
                          compute_, piece.range, memory);
  const std::lock_guard lock(mutex_);
  for (std::size_t at = 0; at < counts_.size(); ++at) counts_[at] += mine[at];
}

// A scan, in whole vectors, gathers what the buckets hold; that is then counted one by one.
void KeyCountsMeasure::count_few(std::vector<SelectEntry>& entries, const Inputs::Piece& piece,
                                 Scratch& scratch) {
  const bool wide = compute_ == Compute::kFloat64;
  const std::uint64_t top =
      wide ? ~std::uint64_t{0} : std::uint64_t{std::numeric_limits<std::uint32_t>::max()};
  const std::size_t work = work_bytes(kernel_);
  const std::size_t room = static_cast<std::size_t>(piece.range.count) * (wide ? 8 : 4) + 64;
  auto* memory = static_cast<std::byte*>(scratch.take(work + room * entries.size()));
  const bool one = width() == 1;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    // A scan gathers what is strictly inside; the key of a single bucket is counted as an end.
    if (one) continue;
    entries[i].low -= entries[i].low == 0 ? 0 : 1;
    entries[i].high = entries[i].high < top ? entries[i].high + 1 : top;
    entries[i].found = memory + work + i * room;
  }
  kernel_.scan(entries.data(), static_cast<int>(entries.size()), piece.base, {}, compute_,
               piece.range, memory);
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const SelectEntry& entry = entries[i];
    std::uint64_t* const counts = counts_.data() + i * (buckets_ + (open_ ? 1 : 0));
    if (one) {
      counts[0] += static_cast<std::uint64_t>(entry.at_high);
    } else {
      wide ? add_found<std::uint64_t>(entry, lows_[i], counts)
           : add_found<std::uint32_t>(entry, lows_[i], counts);
      if (lows_[i] == 0) counts[0] += static_cast<std::uint64_t>(entry.at_low);
    }
    if (open_) {
      counts[buckets_] += static_cast<std::uint64_t>(entry.above + (one ? 0 : entry.at_high));
    }
  }
}

template <typename Key>
void KeyCountsMeasure::add_found(const SelectEntry& entry, std::uint64_t low,
                                 std::uint64_t* counts) const {
  const auto* keys = static_cast<const Key*>(entry.found);
  for (std::int64_t i = 0; i < entry.inside; ++i) ++counts[(keys[i] - low) >> shift_];
}

KeySampleMeasure::KeySampleMeasure(Inputs inputs, Compute compute, std::int64_t apart)
    : Measure(std::move(inputs), compute),
      kernel_(PYMERGE_SELECT_LEVEL(select, active_isa())),
      apart_(apart) {}

void KeySampleMeasure::run(std::int64_t, Scratch& scratch) {
  compute_ == Compute::kFloat64 ? sample<std::uint64_t>(scratch) : sample<std::uint32_t>(scratch);
}

// Runs begin at places that have nothing to do with a row's length, as the spec has them.
template <typename Key>
void KeySampleMeasure::sample(Scratch& scratch) {
  const std::int64_t count = inputs_.count();
  const std::int64_t length = std::min(kRun, count);
  const std::int64_t runs = count == 0 ? 0 : std::max<std::int64_t>(1, count / apart_);
  const auto size = static_cast<std::size_t>(runs * length);
  keys_.resize(size * static_cast<std::size_t>(inputs_.size()));
  std::vector<Operand> operands;
  Inputs::Piece piece{};
  Key found[kRun];
  for (std::int64_t run = 0; run < runs; ++run) {
    const std::int64_t start = run * apart_ + run * 40503 % (apart_ - kRun);
    inputs_.peek({start, length}, scratch, operands, piece);
    for (std::size_t i = 0; i < static_cast<std::size_t>(inputs_.size()); ++i) {
      kernel_.keys(piece.tensors[i], piece.base, {}, compute_, piece.range, found,
                   scratch.take(kernel_.scratch_bytes));
      std::copy(found, found + length,
                keys_.begin() + static_cast<std::ptrdiff_t>(i * size) + run * length);
    }
  }
}

}  // namespace pymerge
