#include "select/counts.h"

#include <algorithm>
#include <utility>

#include "runtime/isa.h"

namespace pymerge {

KeyCountsMeasure::KeyCountsMeasure(Inputs inputs, Compute compute, std::vector<std::uint64_t> lows,
                                   int shift, std::int64_t buckets)
    : Measure(std::move(inputs), compute),
      kernel_(PYMERGE_SELECT_LEVEL(select, active_isa())),
      lows_(std::move(lows)),
      shift_(shift),
      buckets_(static_cast<std::size_t>(buckets)),
      counts_(lows_.size() * buckets_) {}

// Each piece is counted on its own, then added: threads would wait for each other at the few
// buckets that most keys are in.
void KeyCountsMeasure::measure(std::int64_t, const Inputs::Piece& piece, Scratch& scratch) {
  const std::size_t work = (kernel_.scratch_bytes + 63) / 64 * 64;
  const std::size_t size = counts_.size() * sizeof(std::uint32_t);
  auto* memory = static_cast<std::byte*>(scratch.take(work + size));
  auto* mine = reinterpret_cast<std::uint32_t*>(memory + work);
  std::fill(mine, mine + counts_.size(), 0u);
  std::vector<SelectEntry> entries(lows_.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    entries[i].tensor = piece.tensors[i];
    entries[i].low = lows_[i];
    entries[i].high = lows_[i] + (static_cast<std::uint64_t>(buckets_) << shift_) - 1;
    entries[i].shift = shift_;
    entries[i].buckets = mine + i * buckets_;
  }
  if (buckets_ == 1 && shift_ == 0) {
    // One key: a scan counts it in whole vectors.
    kernel_.scan(entries.data(), static_cast<int>(entries.size()), piece.base, {}, compute_,
                 piece.range, memory);
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      counts_[i] += static_cast<std::uint64_t>(entries[i].at_high);
    }
    return;
  }
  kernel_.histogram_alone(entries.data(), static_cast<int>(entries.size()), piece.base, {},
                          compute_, piece.range, memory);
  const std::lock_guard lock(mutex_);
  for (std::size_t at = 0; at < counts_.size(); ++at) counts_[at] += mine[at];
}

}  // namespace pymerge
