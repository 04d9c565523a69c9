// Which keys are the k-th largest: bookkeeping on the host, passes on the device, which the host
// waits for once. Of all tensors at once a sample brackets each rank; one pass over the data counts
// above the brackets and at their ends and gathers what is inside; the cut is one of those. Of a
// small tensor everything is gathered. Where a bracket missed its rank, or holds more than there is
// room for, histograms narrow it, to fewer or to one key, and the pass is made again. So no memory
// is the size of a tensor.
#include <limits>

#include "select/cuda/passes.cuh"

namespace pymerge::cuda {
namespace {

// Elements up to which all keys are gathered.
constexpr std::int64_t kAll = 1 << 18;
// Room for keys: one and a half of the sample's brackets, and some.
constexpr double kRoom = 3;
constexpr std::int64_t kLeastRoom = 1 << 14;
// Of a histogram that narrows a bracket.
constexpr int kNarrowBits = 16;
// Wider than any key, and of no element.
constexpr Rule::Cut kNoCut{(std::uint64_t{1} << 63) - 1, -1};

template <typename Real>
class Search {
 public:
  Search(const Stream& stream, const Ordered& ordered, const std::vector<Wanted>& wanted,
         const std::optional<ForcedBracket>& forced)
      : stream_(stream),
        inputs_(ordered.inputs),
        scores_(stream, ordered),
        forced_(forced),
        cuts_(wanted.size(), kNoCut) {
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i].count == 0 && ordered.share < 0) continue;
      open_.push_back({i, {wanted[i].tensor, wanted[i].count, ordered.share}, {0, kGreatest}});
    }
    if (inputs_.count == 0) open_.clear();
  }

  std::vector<Rule::Cut> run() {
    bool is_guessed = !forced_ && inputs_.count > kAll;
    while (!open_.empty()) {
      settle(pass(is_guessed));
      is_guessed = false;
      if (!open_.empty()) narrow();
    }
    return cuts_;
  }

 private:
  using Key = KeyOf<Real>;
  static constexpr std::int64_t kGreatest = std::numeric_limits<Key>::max();

  struct Open {
    std::size_t place;  // among the cuts
    Entry entry;
    Bracket bracket;
    std::int64_t reach = 0;   // keys that are not below the bracket
    std::int64_t inside = 0;  // those in it, its ends included
  };

  std::int64_t room() const {
    if (forced_) return forced_->room;
    if (inputs_.count <= kAll) return inputs_.count;
    return static_cast<std::int64_t>(kRoom * kSampleError<Key> *
                                     static_cast<double>(inputs_.count)) +
           kLeastRoom;
  }

  // All that the device does about what is open; waits for it.
  std::vector<State> pass(bool is_guessed) {
    const std::size_t entries = open_.size();
    const std::int64_t tiles = divide_up(inputs_.count, kTileKeys<Key>);
    const auto of_tiles = entries * static_cast<std::size_t>(tiles);
    std::vector<Entry> asked;
    std::vector<Bracket> given;
    for (const Open& open : open_) {
      asked.push_back(open.entry);
      given.push_back(first_ && forced_ ? Bracket{static_cast<std::int64_t>(forced_->low),
                                                  static_cast<std::int64_t>(forced_->high)}
                                        : open.bracket);
    }
    first_ = false;
    const HostTable<Entry> table(stream_, asked);
    const DeviceArray<Bracket> brackets(stream_, given);
    const DeviceArray<State> states(stream_, entries);
    const DeviceArray<unsigned long long> slots(stream_, entries * kPadding);
    const DeviceArray<TileCounts> counts(stream_, of_tiles);
    const DeviceArray<unsigned> ties(stream_, of_tiles);
    const DeviceArray<unsigned> buckets(stream_, entries * kChoiceBuckets);
    const DeviceArray<Key> gathered(stream_, entries * static_cast<std::size_t>(room()));
    slots.clear();
    buckets.clear();
    const SearchParams<Real> params{scores_.params,
                                    scores_.how,
                                    static_cast<int>(entries),
                                    table.get(),
                                    {brackets.data(), states.data(), slots.data(), counts.data(),
                                     ties.data(), buckets.data(), gathered.data(), tiles, room()}};
    if (is_guessed) guess_brackets(stream_, params);
    scan(stream_, inputs_, params);
    choose(stream_, params);
    return states.to_host();
  }

  // Notes the cuts that were found; what is left open gets the range that is known to hold its
  // rank.
  void settle(const std::vector<State>& states) {
    std::vector<Open> missed;
    for (std::size_t i = 0; i < states.size(); ++i) {
      const State& state = states[i];
      Open open = open_[i];
      open.entry.wanted = state.wanted;
      open.entry.share = -1;
      const auto [low, high] = state.bracket;
      const std::int64_t top = state.above + state.at_high;
      switch (state.where) {
        case Where::kNowhere:
          continue;
        case Where::kAtHigh:
        case Where::kInside:
        case Where::kAtLow:
          cuts_[open.place] = {static_cast<std::uint64_t>(state.low), state.last};
          continue;
        case Where::kAbove:
          open.bracket = {high + 1, kGreatest};
          open.reach = open.inside = state.above;
          break;
        case Where::kTooMany:
          open.bracket = {low + 1, high - 1};
          open.reach = top + state.inside;
          open.inside = state.inside;
          break;
        case Where::kBelow:
          open.bracket = {0, low - 1};
          open.reach = inputs_.count;
          open.inside = inputs_.count - (top + state.inside + state.at_low);
          break;
      }
      missed.push_back(open);
    }
    open_ = std::move(missed);
  }

  // Brackets of one key, or of no more than there is room for.
  void narrow() {
    for (;;) {
      std::vector<Open*> wide;
      Buckets buckets{{}, {}, {}, std::int64_t{1} << kNarrowBits, false};
      for (Open& open : open_) {
        const auto [low, high] = open.bracket;
        if (open.inside <= room() || low == high) continue;
        int shift = 0;
        while (((high - low) >> shift) >> kNarrowBits != 0) ++shift;
        wide.push_back(&open);
        buckets.kinds.push_back(open.entry.kind);
        buckets.lows.push_back(low);
        buckets.shifts.push_back(shift);
      }
      if (wide.empty()) return;
      const auto counts =
          count_keys(stream_, inputs_, scores_.params, scores_.how, buckets).to_host();
      for (std::size_t i = 0; i < wide.size(); ++i) {
        go_on(*wide[i], counts.data() + i * static_cast<std::size_t>(buckets.count),
              buckets.shifts[i]);
      }
    }
  }

  // In the bucket that holds the rank.
  static void go_on(Open& open, const unsigned long long* counts, int shift) {
    std::int64_t bucket = 0;
    const auto count = [&] { return static_cast<std::int64_t>(counts[bucket]); };
    for (; open.reach - count() >= open.entry.wanted; ++bucket) open.reach -= count();
    open.inside = count();
    open.bracket.low += bucket << shift;
    const std::int64_t last = open.bracket.low + ((std::int64_t{1} << shift) - 1);
    open.bracket.high = std::min(open.bracket.high, last);
  }

  const Stream stream_;
  const Inputs& inputs_;
  const Scores<Real> scores_;
  const std::optional<ForcedBracket> forced_;
  bool first_ = true;
  std::vector<Open> open_;
  std::vector<Rule::Cut> cuts_;
};

}  // namespace

std::vector<Rule::Cut> select(const Stream& stream, const Ordered& ordered,
                              const std::vector<Wanted>& wanted,
                              const std::optional<ForcedBracket>& forced) {
  if (ordered.inputs.compute == Compute::kFloat64) {
    return Search<double>(stream, ordered, wanted, forced).run();
  }
  return Search<float>(stream, ordered, wanted, forced).run();
}

}  // namespace pymerge::cuda
