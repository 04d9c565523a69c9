// select on the CPU: one pass = decode, subtract, compare; only keys inside the bracket are stored.
#include <algorithm>
#include <utility>

#include "common/lines.h"
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
void chunk_keys(const Operand& tensor, const Real* base, const SelectOf& of, std::int64_t begin,
                int n, Workspace<Real>* space) {
  Real* __restrict delta = space->delta;
  Bits<Real>* __restrict keys = space->keys;
  if (of.apart != nullptr) {
    spread_of(of.apart, of.n_apart, begin, n, space->left, space->right, delta);
  } else {
    decode_delta(tensor, base, begin, n, delta);
  }
  if (of.factors.values != nullptr) {
    scale_lines(of.factors.lines, of.factors.values, begin, n, space->delta);
  }
  for (int i = 0; i < n; ++i) keys[i] = magnitude_key(delta[i]);
}

// Entries of one tensor that stand side by side, from the first of them on.
int count_alike(const SelectEntry* entries, int n) {
  int alike = 1;
  while (alike < n && entries[alike].tensor.data == entries[0].tensor.data) ++alike;
  return alike;
}

// Calls body(entries, alike, keys, n) for every chunk of the tile and every tensor.
template <typename Real, typename Body>
void for_each_key_chunk(SelectEntry* entries, int n, const Operand* base, const SelectOf& of,
                        Range tile, void* scratch, const Body& body) {
  auto* space = static_cast<Workspace<Real>*>(scratch);
  const Real* origin = base == nullptr ? nullptr : space->base;
  for_each_chunk(tile, [&](std::int64_t begin, int count) {
    if (base != nullptr) decode(*base, begin, count, space->base);
    for (int e = 0; e < n;) {
      const int alike = count_alike(entries + e, n - e);
      chunk_keys(entries[e].tensor, origin, of, begin, count, space);
      body(entries + e, alike, space->keys, count);
      e += alike;
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

// What a scan over vectors keeps of an entry besides what it counts of every vector.
template <typename V>
struct Scanned {
  using Key = decltype(V::fill_key(0));

  explicit Scanned(const SelectEntry& entry)
      : high(top(entry)),
        low(bottom(entry)),
        inside(entry),
        first(V::fill_key(inside.low)),
        width(V::fill_key(inside.width)),
        found(static_cast<std::uint32_t*>(entry.found) + entry.inside) {}

  // Keys compare as signed numbers: a bracket's end above them all stays so.
  static Key top(const SelectEntry& entry) {
    return V::fill_key(static_cast<std::uint32_t>(std::min(entry.high, kSigned)));
  }
  static Key bottom(const SelectEntry& entry) {
    return V::fill_key(static_cast<std::uint32_t>(entry.low));
  }
  static Key span(const SelectEntry& entry) {
    return V::fill_key(static_cast<std::uint32_t>(entry.high - entry.low));
  }

  // A vector that may hold keys of the bracket, its ends included.
  void take(Key key, bool gathers) {
    at_high = V::count_in(at_high, V::equal(key, high));
    at_low = V::count_in(at_low, V::equal(key, low));
    if (!inside.any) return;
    const auto hits = V::within(key, first, width);
    if (gathers) {
      found += V::append(hits, key, found);
    } else {
      within = V::count_in(within, hits);
    }
  }

  void finish(SelectEntry& entry) const {
    entry.at_high += V::total(at_high);
    entry.at_low += entry.low == entry.high ? 0 : V::total(at_low);
    if (entry.found == nullptr) {
      entry.inside += V::total(within);
    } else {
      entry.inside = found - static_cast<std::uint32_t*>(entry.found);
    }
  }

  Key high, low;
  Inside<std::uint32_t> inside;
  Key first, width;
  Key at_high = V::no_bits();
  Key at_low = V::no_bits();
  Key within = V::no_bits();
  std::uint32_t* found;
};

// Whole vectors of keys, key_at(i) being those from i on, for several entries at once: most vectors
// hold keys of no bracket. Returns how many elements they held.
template <typename V, int... e, typename KeyAt>
std::int64_t scan_vectors(std::integer_sequence<int, e...>, SelectEntry* entries,
                          std::int64_t count, const KeyAt& key_at) {
  using S = Scanned<V>;
  using Key = typename S::Key;
  const Key high[] = {S::top(entries[e])...};
  const Key low[] = {S::bottom(entries[e])...};
  const Key span[] = {S::span(entries[e])...};
  Key above[] = {(static_cast<void>(e), V::no_bits())...};
  S scanned[] = {S(entries[e])...};
  std::int64_t done = 0;
  for (; done + V::kWidth <= count; done += V::kWidth) {
    const Key key = key_at(done);
    const unsigned touched = (V::bits(V::within(key, low[e], span[e])) | ...);
    ((above[e] = V::count_in(above[e], V::above(key, high[e]))), ...);
    if (touched != 0) (scanned[e].take(key, entries[e].found != nullptr), ...);
  }
  ((entries[e].above += V::total(above[e])), ...);
  (scanned[e].finish(entries[e]), ...);
  return done;
}

// The same for any number of entries; float64 has no vectors.
template <typename V, typename KeyAt>
std::int64_t scan_alike(SelectEntry* entries, int n, std::int64_t count, const KeyAt& key_at) {
  std::int64_t done = 0;
  if constexpr (V::kWidth > 0) {
    constexpr int kMost = 4;
    for (int e = 0; e < n; e += kMost) {
      with_count<kMost>(std::min(kMost, n - e), [&](auto size) {
        done =
            scan_vectors<V>(std::make_integer_sequence<int, size()>(), entries + e, count, key_at);
      });
    }
  }
  return done;
}

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

// Whether keys are of magnitudes as they are.
bool is_plain(const SelectOf& of) { return of.apart == nullptr && of.factors.values == nullptr; }

// Task vectors as they are, keys in registers; returns how many elements it did.
template <typename V>
std::int64_t scan_tensor(SelectEntry* entries, int n, const Operand* base, Range range) {
  std::int64_t done = 0;
  if constexpr (V::kWidth > 0) {
    if (base == nullptr) return 0;
    with_dtype(&entries[0].tensor, 1, base, [&](auto dtype) {
      const VectorInput<V, dtype()> tensor(entries[0].tensor, range.begin);
      const VectorInput<V, dtype()> origin(*base, range.begin);
      done = scan_alike<V>(entries, n, range.count, [&](std::int64_t i) {
        return V::magnitude_key(V::subtract(tensor[i], origin[i]));
      });
    });
  }
  return done;
}

template <typename Real>
void scan_as(SelectEntry* entries, int n, const Operand* base, const SelectOf& of, Range range,
             void* scratch) {
  using V = VectorFor<Real>;
  for (int e = 0; e < n; ++e) {
    entries[e].above = entries[e].at_high = entries[e].inside = entries[e].at_low = 0;
    entries[e].zeros = 0;
  }
  for (int e = 0; e < n;) {
    const int alike = count_alike(entries + e, n - e);
    const std::int64_t done = is_plain(of) ? scan_tensor<V>(entries + e, alike, base, range) : 0;
    for_each_key_chunk<Real>(
        entries + e, alike, base, of, {range.begin + done, range.count - done}, scratch,
        [&of](SelectEntry* same, int size, const Bits<Real>* keys, int count) {
          if (of.apart != nullptr) {
            same->zeros += count_keys(keys, count, [](Bits<Real> key) { return key == 0; });
          }
          int whole = 0;
          if constexpr (V::kWidth > 0) {
            const auto key_at = [=](std::int64_t i) { return V::load_keys(keys + i); };
            whole = static_cast<int>(scan_alike<V>(same, size, count, key_at));
          }
          for (int i = 0; i < size; ++i) scan_keys<Real>(same[i], keys + whole, count - whole);
        });
    e += alike;
  }
}

template <typename Real, bool kShared>
void histogram_as(SelectEntry* entries, int n, const Operand* base, const SelectOf& of, Range tile,
                  void* scratch) {
  using Key = Bits<Real>;
  for_each_key_chunk<Real>(entries, n, base, of, tile, scratch,
                           [](SelectEntry* same, int size, const Key* keys, int count) {
                             for (const SelectEntry* entry = same; entry != same + size; ++entry) {
                               const auto low = static_cast<Key>(entry->low);
                               const auto width = static_cast<Key>(entry->high - entry->low);
                               for (int i = 0; i < count; ++i) {
                                 const auto offset = static_cast<Key>(keys[i] - low);
                                 if (offset > width) continue;
                                 std::uint32_t* const bucket =
                                     entry->buckets + (offset >> entry->shift);
                                 if constexpr (kShared) {
                                   __atomic_fetch_add(bucket, 1u, __ATOMIC_RELAXED);
                                 } else {
                                   ++*bucket;
                                 }
                               }
                             }
                           });
}

template <typename Real>
void keys_as(const Operand& tensor, const Operand* base, const SelectOf& of, Range range,
             void* keys, void* scratch) {
  SelectEntry entry{};
  entry.tensor = tensor;
  auto* out = static_cast<Bits<Real>*>(keys);
  for_each_key_chunk<Real>(&entry, 1, base, of, range, scratch,
                           [&out](SelectEntry*, int, const Bits<Real>* chunk, int count) {
                             for (int i = 0; i < count; ++i) out[i] = chunk[i];
                             out += count;
                           });
}

void keys(const Operand& tensor, const Operand* base, const SelectOf& of, Compute compute,
          Range range, void* out, void* scratch) {
  compute == Compute::kFloat64 ? keys_as<double>(tensor, base, of, range, out, scratch)
                               : keys_as<float>(tensor, base, of, range, out, scratch);
}

void scan(SelectEntry* entries, int n, const Operand* base, const SelectOf& of, Compute compute,
          Range tile, void* scratch) {
  compute == Compute::kFloat64 ? scan_as<double>(entries, n, base, of, tile, scratch)
                               : scan_as<float>(entries, n, base, of, tile, scratch);
}

template <bool kShared>
void histogram(SelectEntry* entries, int n, const Operand* base, const SelectOf& of,
               Compute compute, Range tile, void* scratch) {
  compute == Compute::kFloat64 ? histogram_as<double, kShared>(entries, n, base, of, tile, scratch)
                               : histogram_as<float, kShared>(entries, n, base, of, tile, scratch);
}

}  // namespace

PYMERGE_EXPORT(SelectKernel, select) = {keys, scan, histogram<true>, histogram<false>,
                                        sizeof(Workspace<double>)};

}  // namespace pymerge
