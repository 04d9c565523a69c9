// What select's passes hand to each other on the device, and how they are launched. None waits for
// the device.
#pragma once

#include "common/cuda/blocks.cuh"
#include "select/cuda/keys.cuh"

namespace pymerge::cuda {

// Bytes of one tile's keys: what a block of a scan may have to hold.
inline constexpr int kTileBytes = 16 << 10;
template <typename Key>
inline constexpr int kTileKeys = kTileBytes / static_cast<int>(sizeof(Key));

// Keys of a sample, and how far from the wanted rank brackets reach, as a share of the tensor: four
// times the standard error of a rank, which is at most half of 1 / sqrt(keys).
template <typename Key>
inline constexpr int kSampleKeys = sizeof(Key) == 4 ? 1 << 15 : 1 << 14;
template <typename Key>
inline constexpr double kSampleError = sizeof(Key) == 4 ? 0.01105 : 0.015625;

// Counters that many blocks add to are so far from each other.
inline constexpr int kPadding = 16;
// Of the histograms that narrow down what was gathered.
inline constexpr int kChoiceBits = 12;
inline constexpr int kChoiceBuckets = 1 << kChoiceBits;

// A cut that is looked for.
struct Entry {
  int kind;
  std::int64_t wanted;  // rank, 1-based from the largest
  double share;         // not negative: of the elements that are not 0, instead
};

// Keys between which the wanted one probably is; low = high is a key.
struct Bracket {
  std::int64_t low;
  std::int64_t high;
};

// Of one tile and entry. The bracket's ends are counted, not gathered: real task vectors have few
// distinct magnitudes, one of them may be that of 5 % of a tensor, and a sample's order statistics
// are likely to be such.
struct TileCounts {
  unsigned above;
  unsigned at_high;
  unsigned inside;
  unsigned at_low;  // 0 if that is the top
  unsigned zeros;   // of how far tensors are apart
  unsigned slot;    // where its keys inside were put
};

// Where the wanted key is, after a scan.
enum class Where : std::int32_t { kNowhere, kAbove, kAtHigh, kInside, kTooMany, kAtLow, kBelow };

// What is known of an entry; the host reads it when all passes are done.
struct State {
  Where where;
  Bracket bracket;  // of the scan
  std::int64_t wanted;
  std::int64_t above;  // keys above the bracket, at its top, ...
  std::int64_t at_high;
  std::int64_t inside;
  std::int64_t at_low;
  std::int64_t low;  // the key of this rank among those gathered in [low, high]
  std::int64_t high;
  std::int64_t rank;  // in the end: among its equals
  std::int64_t last;  // in the end: the place of the last of them
};

// Memory of a search: for each entry ...
template <typename Key>
struct Room {
  Bracket* brackets;
  State* states;
  unsigned long long* slots;  // kPadding apart: keys inside so far
  TileCounts* tiles;          // [entries][tile_count]
  unsigned* ties;             // [entries][tile_count]
  unsigned* buckets;          // [entries][kChoiceBuckets], zeros
  Key* gathered;              // [entries][room]
  std::int64_t tile_count;
  std::int64_t room;
};

template <typename Real>
struct SearchParams {
  KeyParams<Real> keys;
  How how;
  int entries;
  Table<Entry> entry;
  Room<KeyOf<Real>> room;
};

// Brackets from a sample.
template <typename Real>
void guess_brackets(const Stream& stream, const SearchParams<Real>& params);
// Counts what is in and around the brackets and gathers what is inside; the one pass over all data.
template <typename Real>
void scan(const Stream& stream, const Inputs& inputs, const SearchParams<Real>& params);
// From what was gathered to the state's end.
template <typename Real>
void choose(const Stream& stream, const SearchParams<Real>& params);

// Adds to counts[entries][buckets] how many keys of kinds[i] lie in each bucket of 2^shifts[i] from
// lows[i] on; `open`: the last bucket holds all beyond, too.
struct Buckets {
  std::vector<int> kinds;
  std::vector<std::int64_t> lows;
  std::vector<int> shifts;
  std::int64_t count;
  bool open;
};
template <typename Real>
DeviceArray<unsigned long long> count_keys(const Stream& stream, const Inputs& inputs,
                                           const KeyParams<Real>& keys, How how,
                                           const Buckets& buckets);

}  // namespace pymerge::cuda
