#include "select/job.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "runtime/isa.h"
#include "select/gathered.h"
#include "select/sample.h"

namespace pymerge {
namespace {

// Sample: up to 1,024 runs of 64 elements. The standard error of a rank is then at most 0.2 % of
// the tensor (runs are a little correlated); +- 0.7 % of the tensor is 3.5 of them. Fewer runs in a
// small tensor, in a bracket as much wider: reading one costs as much as scanning 2,000 elements.
constexpr std::int64_t kMaxRuns = 1024;
constexpr std::int64_t kMinRuns = 128;
constexpr std::int64_t kElementsPerRun = 32 << 10;
constexpr double kBracket = 0.007;
constexpr int kBucketBits = 16;
// Elements that are looked through at a time for a cut's last tie.
constexpr std::int64_t kSettled = 16 * kBlock;

}  // namespace

class SelectMeasure::SearchBase {
 public:
  virtual ~SearchBase() = default;
  virtual std::int64_t tiles() const = 0;
  virtual bool is_sampling() const = 0;
  virtual void sample(Scratch& scratch) = 0;
  virtual void pass(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) = 0;
  virtual bool again() = 0;
};

template <typename Key>
class SelectMeasure::Search : public SelectMeasure::SearchBase {
 public:
  Search(SelectMeasure& owner, const std::vector<Wanted>& wanted, std::int64_t gathered);

  std::int64_t tiles() const override { return is_sampling() ? 1 : tile_count(count_); }
  bool is_sampling() const override { return phase_ == Phase::kSample; }
  void sample(Scratch& scratch) override;
  void pass(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) override;
  bool again() override;

 private:
  enum class Phase { kSample, kScan, kHistogram };
  struct TileResult {
    std::int64_t above = 0;
    std::int64_t at_high = 0;
    std::int64_t inside = 0;
    std::int64_t at_low = 0;
    std::int64_t zeros = 0;  // counted of spreads alone
  };
  struct Entry {
    int tensor = 0;
    std::size_t place = 0;    // among the cuts
    std::int64_t wanted = 0;  // rank, 1-based from the largest
    bool settled = false;
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    int shift = 0;
    std::vector<std::uint32_t> buckets;
    std::vector<TileResult> tiles;
    std::atomic<std::int64_t> found{0};  // inside so far, gathered or not
    Gathered<Key> gathered;
  };

  SelectOf ordered(const Inputs::Piece& piece) const;
  void bracket(Entry& entry, std::vector<Key>& keys);
  bool settle(Entry& entry);
  void settle_at(Entry& entry, Key key, std::int64_t ties_wanted);
  std::int64_t find_tie(int tensor, Key key, Range range, std::int64_t wanted) const;
  void narrow(Entry& entry, std::uint64_t low, std::uint64_t high, std::int64_t above);
  void pick_bucket(Entry& entry);

  SelectMeasure& owner_;
  const SelectKernel& kernel_;
  const std::int64_t count_;
  const std::int64_t runs_;          // of the sample
  const std::int64_t max_gathered_;  // keys of one entry before a pass only counts
  Phase phase_;
  std::vector<std::unique_ptr<Entry>> entries_;
  // Keys above the bracket's top when its histogram was asked for, per entry.
  std::vector<std::int64_t> above_;
};

template <typename Key>
SelectMeasure::Search<Key>::Search(SelectMeasure& owner, const std::vector<Wanted>& wanted,
                                   std::int64_t gathered)
    : owner_(owner),
      kernel_(PYMERGE_SELECT_LEVEL(select, active_isa())),
      count_(owner.inputs_.count()),
      runs_(std::clamp(count_ / kElementsPerRun, kMinRuns, kMaxRuns)),
      max_gathered_(gathered / static_cast<std::int64_t>(sizeof(Key))),
      phase_(count_ > kTile ? Phase::kSample : Phase::kScan),
      above_(wanted.size(), 0) {
  for (const Wanted& cut : wanted) {
    auto entry = std::make_unique<Entry>();
    entry->tensor = cut.tensor;
    entry->place = entries_.size();
    entry->wanted = cut.count;
    entry->settled = cut.count == 0 && cut.share < 0;  // an empty cut stays as it was made
    entry->high = static_cast<Key>(~Key{0});
    entry->tiles.resize(static_cast<std::size_t>(tile_count(count_)));
    entries_.push_back(std::move(entry));
  }
}

template <typename Key>
SelectOf SelectMeasure::Search<Key>::ordered(const Inputs::Piece& piece) const {
  SelectOf of;
  of.factors = owner_.factors_.view();
  if (owner_.share_ >= 0) {
    of.apart = piece.tensors;
    of.n_apart = owner_.inputs_.size();
  }
  return of;
}

template <typename Key>
void SelectMeasure::Search<Key>::sample(Scratch& scratch) {
  owner_.inputs_.load(scratch);
  std::vector<std::vector<Key>> keys(
      static_cast<std::size_t>(owner_.share_ >= 0 ? 1 : owner_.inputs_.size()));
  for (auto& sampled : keys) sampled.resize(static_cast<std::size_t>(runs_ * kRunLength));
  std::vector<Operand> operands;
  Inputs::Piece piece{};
  const LineNumbers& factors = owner_.factors_;
  const bool by_rows = !factors.values.empty() && !factors.lines.strided;
  std::int64_t run = -1;
  for (const std::int64_t start :
       by_rows ? spread_runs(factors, runs_) : spread_runs(count_, runs_)) {
    ++run;
    owner_.inputs_.peek({start, kRunLength}, scratch, operands, piece);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      kernel_.keys(piece.tensors[i], piece.base, ordered(piece), owner_.compute_, piece.range,
                   keys[i].data() + run * kRunLength, scratch.take(kernel_.scratch_bytes));
    }
  }
  for (const auto& entry : entries_) {
    if (!entry->settled) bracket(*entry, keys[static_cast<std::size_t>(entry->tensor)]);
  }
}

// The sample's order statistics a little above and below the wanted rank.
template <typename Key>
void SelectMeasure::Search<Key>::bracket(Entry& entry, std::vector<Key>& keys) {
  const auto size = static_cast<double>(keys.size());
  const auto zeros = static_cast<double>(std::count(keys.begin(), keys.end(), Key{0}));
  const double share = owner_.share_ >= 0
                           ? owner_.share_ * (1 - zeros / size)
                           : static_cast<double>(entry.wanted) / static_cast<double>(count_);
  const auto rank = [&](double at) {  // from the largest
    return keys.begin() + static_cast<std::ptrdiff_t>(std::clamp(at * size, 0.0, size - 1));
  };
  const double width =
      kBracket * std::sqrt(static_cast<double>(kMaxRuns) / static_cast<double>(runs_));
  const auto above = rank(share - width);
  const auto below = rank(share + width);
  std::nth_element(keys.begin(), above, keys.end(), std::greater<Key>());
  if (share > width) entry.high = *above;
  std::nth_element(above, below, keys.end(), std::greater<Key>());
  if (share < 1 - width) entry.low = *below;
}

template <typename Key>
void SelectMeasure::Search<Key>::pass(std::int64_t tile, const Inputs::Piece& piece,
                                      Scratch& scratch) {
  std::vector<SelectEntry> requests;
  std::vector<Entry*> open;
  for (const auto& entry : entries_) {
    if (entry->settled) continue;
    SelectEntry request{};
    request.tensor = piece.tensors[entry->tensor];
    request.low = entry->low;
    request.high = entry->high;
    request.shift = entry->shift;
    request.buckets = entry->buckets.data();
    requests.push_back(request);
    open.push_back(entry.get());
  }
  const auto n = static_cast<int>(requests.size());
  // Workspace first, then room for a piece of keys per entry.
  const std::size_t room = static_cast<std::size_t>(piece.range.count) * sizeof(Key) + 64;
  const std::size_t work = (kernel_.scratch_bytes + 63) / 64 * 64;
  auto* memory = static_cast<std::byte*>(scratch.take(work + room * requests.size()));
  if (phase_ == Phase::kHistogram) {
    kernel_.histogram(requests.data(), n, piece.base, ordered(piece), owner_.compute_, piece.range,
                      memory);
    return;
  }
  for (std::size_t e = 0; e < requests.size(); ++e) {
    const bool gather = open[e]->found < max_gathered_;
    requests[e].found = gather ? memory + work + e * room : nullptr;
  }
  kernel_.scan(requests.data(), n, piece.base, ordered(piece), owner_.compute_, piece.range,
               memory);
  for (std::size_t e = 0; e < requests.size(); ++e) {
    TileResult& result = open[e]->tiles[static_cast<std::size_t>(tile)];
    result.above += requests[e].above;
    result.at_high += requests[e].at_high;
    result.inside += requests[e].inside;
    result.at_low += requests[e].at_low;
    result.zeros += requests[e].zeros;
    const std::int64_t before = open[e]->found.fetch_add(requests[e].inside);
    if (requests[e].found != nullptr && before + requests[e].inside <= max_gathered_) {
      const auto* found = static_cast<const Key*>(requests[e].found);
      open[e]->gathered.add(tile, found, requests[e].inside);
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
  for (const auto& entry : entries_) {
    entry->gathered.clear();
    entry->found = 0;
    for (TileResult& tile : entry->tiles) tile = {};
  }
  return !all;
}

// After a scan: the cut, if the bracket held it and everything inside was gathered.
template <typename Key>
bool SelectMeasure::Search<Key>::settle(Entry& entry) {
  TileResult all;
  for (const TileResult& tile : entry.tiles) {
    all.above += tile.above;
    all.at_high += tile.at_high;
    all.inside += tile.inside;
    all.at_low += tile.at_low;
    all.zeros += tile.zeros;
  }
  if (owner_.share_ >= 0) {
    entry.wanted =
        static_cast<std::int64_t>(owner_.share_ * static_cast<double>(count_ - all.zeros));
    if (entry.wanted == 0) return entry.settled = true;
  }
  std::int64_t rank = entry.wanted - all.above;  // within the bracket
  if (rank <= 0) {
    narrow(entry, entry.high + 1, static_cast<Key>(~Key{0}), 0);
  } else if (rank <= all.at_high) {
    settle_at(entry, static_cast<Key>(entry.high), rank);
  } else if ((rank -= all.at_high) <= all.inside) {
    if (entry.gathered.size() == all.inside) {
      const Key key = entry.gathered.choose(entry.low, entry.high, rank);
      settle_at(entry, key, rank);
    } else {
      narrow(entry, entry.low + 1, entry.high - 1, all.above + all.at_high);
    }
  } else if ((rank -= all.inside) <= all.at_low) {
    settle_at(entry, static_cast<Key>(entry.low), rank);
  } else {
    narrow(entry, 0, entry.low - 1, entry.wanted - (rank - all.at_low));
  }
  return entry.settled;
}

// The flat index of the last tie that still belongs to the cut.
template <typename Key>
void SelectMeasure::Search<Key>::settle_at(Entry& entry, Key key, std::int64_t ties_wanted) {
  std::vector<std::int64_t> ties(entry.tiles.size());
  for (std::size_t tile = 0; tile < ties.size(); ++tile) {
    ties[tile] = key == entry.high  ? entry.tiles[tile].at_high
                 : key == entry.low ? entry.tiles[tile].at_low
                                    : 0;
  }
  if (key != entry.high && key != entry.low) entry.gathered.count(key, ties);
  Rule::Cut& cut = owner_.cuts_[entry.place];
  for (std::size_t tile = 0; tile < ties.size(); ++tile) {
    if (ties[tile] < ties_wanted) {
      ties_wanted -= ties[tile];
      continue;
    }
    cut = {key, find_tie(entry.tensor, key, owner_.tile_range(static_cast<std::int64_t>(tile)),
                         ties_wanted)};
    break;
  }
  entry.settled = true;
  entry.tiles = {};
}

// The flat index of the `wanted`-th element of this key in a range that has as many. Piece by
// piece, so that no array of a tile's size is made.
template <typename Key>
std::int64_t SelectMeasure::Search<Key>::find_tie(int tensor, Key key, Range range,
                                                  std::int64_t wanted) const {
  Scratch scratch;
  std::vector<Operand> operands;
  Inputs::Piece piece{};
  const std::int64_t end = range.begin + range.count;
  for (std::int64_t begin = range.begin; begin < end; begin += kSettled) {
    owner_.inputs_.peek({begin, std::min(kSettled, end - begin)}, scratch, operands, piece,
                        owner_.share_ >= 0 ? -1 : tensor);
    void* const work = scratch.take(kernel_.scratch_bytes);
    SelectEntry same{};
    same.tensor = piece.tensors[tensor];
    same.low = same.high = key;
    kernel_.scan(&same, 1, piece.base, ordered(piece), owner_.compute_, piece.range, work);
    if (same.at_high < wanted) {
      wanted -= same.at_high;
      continue;
    }
    std::vector<Key> keys(static_cast<std::size_t>(piece.range.count));
    kernel_.keys(same.tensor, piece.base, ordered(piece), owner_.compute_, piece.range, keys.data(),
                 work);
    std::size_t at = 0;
    for (; wanted > 0; ++at) wanted -= keys[at] == key ? 1 : 0;
    return begin + static_cast<std::int64_t>(at) - 1;
  }
  return -1;  // not reached: the ties were counted
}

// After a scan that did not settle: a histogram over the part that holds the rank, of which `above`
// keys lie above.
template <typename Key>
void SelectMeasure::Search<Key>::narrow(Entry& entry, std::uint64_t low, std::uint64_t high,
                                        std::int64_t above) {
  entry.low = low;
  entry.high = high;
  above_[entry.place] = above;
  entry.shift = 0;
  while (((high - low) >> entry.shift) >> kBucketBits != 0) ++entry.shift;
  entry.buckets.assign(std::size_t{1} << kBucketBits, 0);
}

// After a histogram: the one bucket that holds the rank is the next bracket.
template <typename Key>
void SelectMeasure::Search<Key>::pick_bucket(Entry& entry) {
  std::int64_t above = above_[entry.place];
  std::size_t bucket = entry.buckets.size() - 1;
  while (above + entry.buckets[bucket] < entry.wanted) above += entry.buckets[bucket--];
  const std::uint64_t low = entry.low + (static_cast<std::uint64_t>(bucket) << entry.shift);
  entry.high = std::min(entry.high, low + ((std::uint64_t{1} << entry.shift) - 1));
  entry.low = low;
  entry.buckets = {};
}

SelectMeasure::SelectMeasure(Inputs inputs, Compute compute, const std::vector<Wanted>& wanted,
                             std::int64_t gathered, LineNumbers factors)
    : Measure(std::move(inputs), compute),
      share_(wanted.empty() ? -1 : wanted[0].share),
      factors_(std::move(factors)),
      // Wider than any key: what is wanted 0 times keeps this, a cut that holds nothing.
      cuts_(wanted.size(), Rule::Cut{(std::uint64_t{1} << 63) - 1, -1}) {
  if (compute_ == Compute::kFloat64) {
    search_ = std::make_unique<Search<std::uint64_t>>(*this, wanted, gathered);
  } else {
    search_ = std::make_unique<Search<std::uint32_t>>(*this, wanted, gathered);
  }
}

SelectMeasure::~SelectMeasure() = default;

std::int64_t SelectMeasure::tiles() const { return search_->tiles(); }

void SelectMeasure::run(std::int64_t tile, Scratch& scratch) {
  search_->is_sampling() ? search_->sample(scratch) : Measure::run(tile, scratch);
}

void SelectMeasure::measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) {
  search_->pass(tile, piece, scratch);
}

bool SelectMeasure::again() { return search_->again(); }

}  // namespace pymerge
