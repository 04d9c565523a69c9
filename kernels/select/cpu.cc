// select on the CPU: one pass = decode, subtract, compare; only keys inside the bracket are stored.
#include "common/rules.h"
#include "common/spread.h"
#include "common/vectors.h"
#include "select/select.h"

namespace pymerge {
namespace {

constexpr std::uint64_t kSigned = 0x7fffffffu;

template <typename Real>
struct Workspace {
  Real base[kBlock];
  Real delta[kBlock];
  Bits<Real> keys[kBlock];
  Real left[kBlock];
  Real right[kBlock];
};

template <typename Real>
void chunk_keys(const SelectEntry& entry, const Real* base, std::int64_t begin, int n,
                Workspace<Real>* space) {
  Real* __restrict delta = space->delta;
  Bits<Real>* __restrict keys = space->keys;
  if (entry.apart != nullptr) {
    spread_of(entry.apart, entry.n_apart, begin, n, space->left, space->right, delta);
  } else {
    decode_delta(entry.tensor, base, begin, n, delta);
  }
  for (int i = 0; i < n; ++i) keys[i] = magnitude_key(delta[i]);
}

// Calls body(entry, keys, n) for every chunk of the tile and every entry.
template <typename Real, typename Body>
void for_each_key_chunk(SelectEntry* entries, int n, const Operand* base, Range tile, void* scratch,
                        const Body& body) {
  auto* space = static_cast<Workspace<Real>*>(scratch);
  const Real* origin = base == nullptr ? nullptr : space->base;
  for_each_chunk(tile, [&](std::int64_t begin, int count) {
    if (base != nullptr) decode(*base, begin, count, space->base);
    for (int e = 0; e < n; ++e) {
      chunk_keys(entries[e], origin, begin, count, space);
      body(entries[e], space->keys, count);
    }
  });
}

// How many of the keys fulfill a condition.
template <typename Key, typename Condition>
std::int64_t count_keys(const Key* keys, int count, const Condition& holds) {
  Key total = 0;
  for (int i = 0; i < count; ++i) total += holds(keys[i]) ? 1 : 0;
  return static_cast<std::int64_t>(total);
}

// The first key strictly inside a bracket, and the last minus the first, if there is any.
template <typename Key>
struct Inside {
  explicit Inside(const SelectEntry& entry)
      : any(entry.high - entry.low >= 2),
        low(static_cast<Key>(entry.low + 1)),
        width(static_cast<Key>(entry.high - entry.low - 2)) {}
  bool any;
  Key low;
  Key width;
};

template <typename Real>
void scan_keys(SelectEntry& entry, const Bits<Real>* keys, int count) {
  using Key = Bits<Real>;
  const auto low = static_cast<Key>(entry.low);
  const auto high = static_cast<Key>(entry.high);
  entry.above += count_keys(keys, count, [=](Key key) { return key > high; });
  entry.at_high += count_keys(keys, count, [=](Key key) { return key == high; });
  if (low == high) return;
  entry.at_low += count_keys(keys, count, [=](Key key) { return key == low; });
  const Inside<Key> inside(entry);
  if (!inside.any) return;
  if (entry.found != nullptr) {
    Key* const end = static_cast<Key*>(entry.found) + entry.inside;
    entry.inside += append_in_range<VectorFor<Real>>(keys, count, inside.low, inside.width, end);
  } else {
    entry.inside += count_keys(
        keys, count, [=](Key key) { return static_cast<Key>(key - inside.low) <= inside.width; });
  }
}

// The same over whole vectors of task vectors, keys in registers; returns how many elements it did.
template <typename V>
std::int64_t scan_vectors(SelectEntry& entry, const Operand* base, Range range) {
  std::int64_t done = 0;
  if constexpr (V::kWidth > 0) {
    if (base == nullptr || entry.apart != nullptr) return 0;
    with_dtype(&entry.tensor, 1, base, [&](auto dtype) {
      // Keys compare as signed numbers: a bracket's end above them all stays so.
      const auto high = V::fill_key(static_cast<std::uint32_t>(std::min(entry.high, kSigned)));
      const auto low = V::fill_key(static_cast<std::uint32_t>(entry.low));
      const Inside<std::uint32_t> inside(entry);
      const auto first = V::fill_key(inside.low);
      const auto width = V::fill_key(inside.width);
      auto* found = static_cast<std::uint32_t*>(entry.found);
      auto above = V::no_bits();
      auto at_high = V::no_bits();
      auto at_low = V::no_bits();
      auto within = V::no_bits();
      const VectorInput<V, dtype()> tensor(entry.tensor, range.begin);
      const VectorInput<V, dtype()> origin(*base, range.begin);
      for (; done + V::kWidth <= range.count; done += V::kWidth) {
        const auto delta = V::subtract(tensor[done], origin[done]);
        const auto key = V::magnitude_key(delta);
        above = V::count_in(above, V::above(key, high));
        at_high = V::count_in(at_high, V::equal(key, high));
        at_low = V::count_in(at_low, V::equal(key, low));
        if (!inside.any) continue;
        const auto hits = V::within(key, first, width);
        if (found == nullptr) {
          within = V::count_in(within, hits);
        } else {
          found += V::append(hits, key, found);
        }
      }
      entry.above = V::total(above);
      entry.at_high = V::total(at_high);
      entry.at_low = entry.low == entry.high ? 0 : V::total(at_low);
      entry.inside =
          found == nullptr ? V::total(within) : found - static_cast<std::uint32_t*>(entry.found);
    });
  }
  return done;
}

template <typename Real>
void scan_as(SelectEntry* entries, int n, const Operand* base, Range range, void* scratch) {
  for (int e = 0; e < n; ++e) {
    SelectEntry& entry = entries[e];
    entry.above = entry.at_high = entry.inside = entry.at_low = 0;
    const std::int64_t done = scan_vectors<VectorFor<Real>>(entry, base, range);
    for_each_key_chunk<Real>(&entry, 1, base, {range.begin + done, range.count - done}, scratch,
                             [](SelectEntry& same, const Bits<Real>* keys, int count) {
                               scan_keys<Real>(same, keys, count);
                             });
  }
}

template <typename Real, bool kShared>
void histogram_as(SelectEntry* entries, int n, const Operand* base, Range tile, void* scratch) {
  using Key = Bits<Real>;
  for_each_key_chunk<Real>(
      entries, n, base, tile, scratch, [](SelectEntry& entry, const Key* keys, int count) {
        const auto low = static_cast<Key>(entry.low);
        const auto width = static_cast<Key>(entry.high - entry.low);
        for (int i = 0; i < count; ++i) {
          const auto offset = static_cast<Key>(keys[i] - low);
          if (offset > width) continue;
          std::uint32_t* const bucket = entry.buckets + (offset >> entry.shift);
          if constexpr (kShared) {
            __atomic_fetch_add(bucket, 1u, __ATOMIC_RELAXED);
          } else {
            ++*bucket;
          }
        }
      });
}

template <typename Real>
void keys_as(SelectEntry entry, const Operand* base, Range range, void* keys, void* scratch) {
  auto* out = static_cast<Bits<Real>*>(keys);
  for_each_key_chunk<Real>(&entry, 1, base, range, scratch,
                           [&out](SelectEntry&, const Bits<Real>* chunk, int count) {
                             for (int i = 0; i < count; ++i) out[i] = chunk[i];
                             out += count;
                           });
}

void keys(const SelectEntry& entry, const Operand* base, Compute compute, Range range, void* out,
          void* scratch) {
  compute == Compute::kFloat64 ? keys_as<double>(entry, base, range, out, scratch)
                               : keys_as<float>(entry, base, range, out, scratch);
}

void scan(SelectEntry* entries, int n, const Operand* base, Compute compute, Range tile,
          void* scratch) {
  compute == Compute::kFloat64 ? scan_as<double>(entries, n, base, tile, scratch)
                               : scan_as<float>(entries, n, base, tile, scratch);
}

template <bool kShared>
void histogram(SelectEntry* entries, int n, const Operand* base, Compute compute, Range tile,
               void* scratch) {
  compute == Compute::kFloat64 ? histogram_as<double, kShared>(entries, n, base, tile, scratch)
                               : histogram_as<float, kShared>(entries, n, base, tile, scratch);
}

}  // namespace

PYMERGE_EXPORT(SelectKernel, select) = {keys, scan, histogram<true>, histogram<false>,
                                        sizeof(Workspace<double>)};

}  // namespace pymerge
