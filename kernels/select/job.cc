#include "select/job.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/isa.h"

namespace pymerge {
namespace {

// Sample: 1,024 runs of 64 elements. The standard error of a rank is then at most 0.2 % of the
// tensor (runs are a little correlated); +- 0.7 % of the tensor is 3.5 of them (docs/numerics.md).
constexpr std::int64_t kRuns = 1024;
constexpr std::int64_t kRunLength = 64;
constexpr double kBracket = 0.007;
// Bytes between the first and the last run of the sample that stay mapped.
constexpr std::int64_t kSampled = 4 << 20;
constexpr int kBucketBits = 16;

}  // namespace

class SelectMeasure::SearchBase {
 public:
  virtual ~SearchBase() = default;
  virtual std::int64_t tiles() const = 0;
  virtual bool is_sampling() const = 0;
  virtual void sample(Scratch& scratch) = 0;
  virtual void pass(std::int64_t tile, Range range, Scratch& scratch) = 0;
  virtual bool again() = 0;
};

template <typename Key>
class SelectMeasure::Search : public SelectMeasure::SearchBase {
 public:
  Search(SelectMeasure& owner, std::vector<std::int64_t> counts, std::int64_t gathered);

  std::int64_t tiles() const override { return is_sampling() ? 1 : tile_count(count_); }
  bool is_sampling() const override { return phase_ == Phase::kSample; }
  void sample(Scratch& scratch) override;
  void pass(std::int64_t tile, Range range, Scratch& scratch) override;
  bool again() override;

 private:
  enum class Phase { kSample, kScan, kHistogram };
  struct TileResult {
    std::int64_t above = 0;
    std::int64_t inside = 0;
    std::vector<Key> found;
  };
  struct Entry {
    int source = 0;
    std::int64_t wanted = 0;  // rank, 1-based from the largest
    bool settled = false;
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    int shift = 0;
    std::vector<std::uint32_t> buckets;
    std::vector<TileResult> tiles;
    std::atomic<std::int64_t> gathered{0};
  };

  SelectEntry request(const Entry& entry) const;
  void bracket(Entry& entry, std::vector<Key>& keys);
  bool settle(Entry& entry);
  void settle_at(Entry& entry, Key key, std::int64_t ties_wanted);
  void narrow(Entry& entry, std::int64_t above, std::int64_t inside);
  void pick_bucket(Entry& entry);

  SelectMeasure& owner_;
  const SelectKernel& kernel_;
  const std::int64_t count_;
  const std::int64_t max_gathered_;  // keys of one entry before a pass only counts
  Phase phase_;
  std::vector<std::unique_ptr<Entry>> entries_;
  // Keys above the bracket's top when its histogram was asked for, per entry.
  std::vector<std::int64_t> above_;
};

template <typename Key>
SelectMeasure::Search<Key>::Search(SelectMeasure& owner, std::vector<std::int64_t> counts,
                                   std::int64_t gathered)
    : owner_(owner),
      kernel_(PYMERGE_SELECT_LEVEL(select, active_isa())),
      count_(owner.inputs_.count()),
      max_gathered_(gathered / static_cast<std::int64_t>(sizeof(Key))),
      phase_(count_ > kTile ? Phase::kSample : Phase::kScan),
      above_(counts.size(), 0) {
  for (std::size_t i = 0; i < counts.size(); ++i) {
    auto entry = std::make_unique<Entry>();
    entry->source = static_cast<int>(i);
    entry->wanted = counts[i];
    entry->settled = counts[i] == 0;  // an empty cut stays as it was made
    entry->high = static_cast<Key>(~Key{0});
    entry->tiles.resize(static_cast<std::size_t>(tile_count(count_)));
    entries_.push_back(std::move(entry));
  }
}

template <typename Key>
SelectEntry SelectMeasure::Search<Key>::request(const Entry& entry) const {
  SelectEntry made{};
  made.tensor = owner_.inputs_.operands()[entry.source];
  made.low = entry.low;
  made.high = entry.high;
  made.shift = entry.shift;
  return made;
}

template <typename Key>
void SelectMeasure::Search<Key>::sample(Scratch& scratch) {
  const std::int64_t stride = count_ / kRuns;
  std::vector<Key> keys(static_cast<std::size_t>(kRuns * kRunLength));
  // Each run touches a page of its own, and up to 2 MiB around it come along: let them go in
  // between.
  const std::int64_t apart = stride * static_cast<std::int64_t>(sizeof(Key));
  const std::int64_t step = std::clamp<std::int64_t>(kSampled / apart, 1, kRuns);
  for (const auto& entry : entries_) {
    for (std::int64_t run = 0; run < kRuns; ++run) {
      if (run % step == 0 && run > 0) owner_.inputs_.leave({(run - step) * stride, step * stride});
      kernel_.keys(owner_.inputs_.operands()[entry->source], owner_.inputs_.base(), owner_.compute_,
                   {run * stride, kRunLength}, keys.data() + run * kRunLength,
                   scratch.take(kernel_.scratch_bytes));
    }
    if (!entry->settled) bracket(*entry, keys);
  }
  owner_.inputs_.leave({0, count_});
}

// The sample's order statistics a little above and below the wanted rank.
template <typename Key>
void SelectMeasure::Search<Key>::bracket(Entry& entry, std::vector<Key>& keys) {
  const auto size = static_cast<double>(keys.size());
  const double share = static_cast<double>(entry.wanted) / static_cast<double>(count_);
  const auto rank = [&](double at) {  // from the largest
    return keys.begin() + static_cast<std::ptrdiff_t>(std::clamp(at * size, 0.0, size - 1));
  };
  const auto above = rank(share - kBracket);
  const auto below = rank(share + kBracket);
  std::nth_element(keys.begin(), above, keys.end(), std::greater<Key>());
  if (share > kBracket) entry.high = *above;
  // The first call left everything from `above` on in its place: only that part is searched.
  std::nth_element(above, below, keys.end(), std::greater<Key>());
  if (share < 1 - kBracket) entry.low = *below;
}

template <typename Key>
void SelectMeasure::Search<Key>::pass(std::int64_t tile, Range range, Scratch& scratch) {
  // Workspace first, then room for a tile of keys per entry.
  std::vector<SelectEntry> requests;
  std::vector<Entry*> open;
  for (const auto& entry : entries_) {
    if (entry->settled) continue;
    requests.push_back(request(*entry));
    open.push_back(entry.get());
  }
  const auto n = static_cast<int>(requests.size());
  const std::size_t room = static_cast<std::size_t>(range.count) * sizeof(Key) + 64;
  const std::size_t work = (kernel_.scratch_bytes + 63) / 64 * 64;
  auto* memory = static_cast<std::byte*>(scratch.take(work + room * requests.size()));
  if (phase_ == Phase::kHistogram) {
    for (int e = 0; e < n; ++e)
      requests[static_cast<std::size_t>(e)].buckets =
          open[static_cast<std::size_t>(e)]->buckets.data();
    kernel_.histogram(requests.data(), n, owner_.inputs_.base(), owner_.compute_, range, memory);
    return;
  }
  for (std::size_t e = 0; e < requests.size(); ++e) {
    const bool gather = open[e]->low < open[e]->high && open[e]->gathered < max_gathered_;
    requests[e].found = gather ? memory + work + e * room : nullptr;
  }
  kernel_.scan(requests.data(), n, owner_.inputs_.base(), owner_.compute_, range, memory);
  for (std::size_t e = 0; e < requests.size(); ++e) {
    TileResult& result = open[e]->tiles[static_cast<std::size_t>(tile)];
    result.above = requests[e].above;
    result.inside = requests[e].inside;
    result.found.clear();
    const std::int64_t before = open[e]->gathered.fetch_add(result.inside);
    if (requests[e].found != nullptr && before + result.inside <= max_gathered_) {
      const auto* found = static_cast<const Key*>(requests[e].found);
      result.found.assign(found, found + result.inside);
    }
  }
}

template <typename Key>
bool SelectMeasure::Search<Key>::again() {
  if (phase_ == Phase::kSample) {
    phase_ = Phase::kScan;
    return true;
  }
  bool all = true;
  for (const auto& entry : entries_) {
    if (entry->settled) continue;
    if (phase_ == Phase::kHistogram) {
      pick_bucket(*entry);
      all = false;
    } else if (!settle(*entry)) {
      all = false;
    }
  }
  phase_ = phase_ == Phase::kHistogram ? Phase::kScan : Phase::kHistogram;
  return !all;
}

// After a scan: the cut, if the bracket held it and everything inside was gathered.
template <typename Key>
bool SelectMeasure::Search<Key>::settle(Entry& entry) {
  std::int64_t above = 0;
  std::int64_t inside = 0;
  std::size_t gathered = 0;
  for (const TileResult& tile : entry.tiles) {
    above += tile.above;
    inside += tile.inside;
    gathered += tile.found.size();
  }
  const bool held = above < entry.wanted && entry.wanted <= above + inside;
  if (held && entry.low == entry.high) {
    settle_at(entry, static_cast<Key>(entry.low), entry.wanted - above);
    return true;
  }
  if (!held || static_cast<std::int64_t>(gathered) != inside) {
    for (TileResult& tile : entry.tiles) tile.found = {};
    narrow(entry, above, inside);
    return false;
  }
  std::vector<Key> found;
  found.reserve(gathered);
  for (const TileResult& tile : entry.tiles) {
    found.insert(found.end(), tile.found.begin(), tile.found.end());
  }
  const auto nth = found.begin() + (entry.wanted - above - 1);
  std::nth_element(found.begin(), nth, found.end(), std::greater<Key>());
  const Key key = *nth;
  const auto greater = std::count_if(found.begin(), nth, [&](Key k) { return k > key; });
  settle_at(entry, key, entry.wanted - above - greater);
  return true;
}

// The flat index of the last tie that still belongs to the cut.
template <typename Key>
void SelectMeasure::Search<Key>::settle_at(Entry& entry, Key key, std::int64_t ties_wanted) {
  const bool counted = entry.low == entry.high;
  Rule::Cut& cut = owner_.cuts_[static_cast<std::size_t>(entry.source)];
  for (std::size_t tile = 0; tile < entry.tiles.size(); ++tile) {
    TileResult& result = entry.tiles[tile];
    const std::int64_t ties =
        counted ? result.inside : std::count(result.found.begin(), result.found.end(), key);
    if (ties < ties_wanted) {
      ties_wanted -= ties;
      continue;
    }
    const Range range = owner_.tile_range(static_cast<std::int64_t>(tile));
    std::vector<Key> keys(static_cast<std::size_t>(range.count));
    Scratch scratch;
    kernel_.keys(owner_.inputs_.operands()[entry.source], owner_.inputs_.base(), owner_.compute_,
                 range, keys.data(), scratch.take(kernel_.scratch_bytes));
    owner_.inputs_.leave(range);
    std::int64_t at = 0;
    for (; ties_wanted > 0; ++at) ties_wanted -= keys[static_cast<std::size_t>(at)] == key ? 1 : 0;
    cut = {key, range.begin + at - 1};
    break;
  }
  entry.settled = true;
  entry.tiles = {};
}

// After a scan that did not settle: which side the rank is on, and a histogram over it.
template <typename Key>
void SelectMeasure::Search<Key>::narrow(Entry& entry, std::int64_t above, std::int64_t inside) {
  std::int64_t& known_above = above_[static_cast<std::size_t>(entry.source)];
  known_above = above;
  if (entry.wanted <= above) {
    entry.low = entry.high + 1;
    entry.high = static_cast<Key>(~Key{0});
    known_above = 0;
  } else if (entry.wanted > above + inside) {
    entry.high = entry.low - 1;
    entry.low = 0;
    known_above = above + inside;
  }
  entry.shift = 0;
  while (((entry.high - entry.low) >> entry.shift) >> kBucketBits != 0) ++entry.shift;
  entry.buckets.assign(std::size_t{1} << kBucketBits, 0);
}

// After a histogram: the one bucket that holds the rank is the next bracket.
template <typename Key>
void SelectMeasure::Search<Key>::pick_bucket(Entry& entry) {
  std::int64_t above = above_[static_cast<std::size_t>(entry.source)];
  std::size_t bucket = entry.buckets.size() - 1;
  while (above + entry.buckets[bucket] < entry.wanted) above += entry.buckets[bucket--];
  const std::uint64_t low = entry.low + (static_cast<std::uint64_t>(bucket) << entry.shift);
  entry.high = std::min(entry.high, low + ((std::uint64_t{1} << entry.shift) - 1));
  entry.low = low;
  entry.gathered = 0;
  entry.buckets = {};
}

SelectMeasure::SelectMeasure(Inputs inputs, Compute compute, std::vector<std::int64_t> counts,
                             std::int64_t gathered)
    : Measure(std::move(inputs), compute),
      // Wider than any key: what is wanted 0 times keeps this, a cut that holds nothing.
      cuts_(counts.size(), Rule::Cut{(std::uint64_t{1} << 63) - 1, -1}) {
  if (compute_ == Compute::kFloat64) {
    search_ = std::make_unique<Search<std::uint64_t>>(*this, std::move(counts), gathered);
  } else {
    search_ = std::make_unique<Search<std::uint32_t>>(*this, std::move(counts), gathered);
  }
}

SelectMeasure::~SelectMeasure() = default;

std::int64_t SelectMeasure::tiles() const { return search_->tiles(); }

void SelectMeasure::run(std::int64_t tile, Scratch& scratch) {
  search_->is_sampling() ? search_->sample(scratch) : Measure::run(tile, scratch);
}

void SelectMeasure::measure(std::int64_t tile, Range range, Scratch& scratch) {
  search_->pass(tile, range, scratch);
}

bool SelectMeasure::again() { return search_->again(); }

}  // namespace pymerge
