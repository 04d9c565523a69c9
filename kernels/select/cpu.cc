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

// What a scan over vectors counts of an entry and takes from it, without a branch: as many vectors
// hold keys of a bracket as not, since real task vectors have few distinct magnitudes, and what was
// guessed wrong cost more than all else.
template <typename V>
class Scanned {
 public:
  using Key = decltype(V::fill_key(0));

  // Keys compare as signed numbers: brackets that reach above them all, or lie there, stay so.
  // `unused` is written where keys are only counted: room for a vector.
  Scanned(const SelectEntry& entry, std::uint32_t* unused)
      : high_(fill(std::min(entry.high, kSigned))),
        below_high_(fill(std::min(entry.high, kSigned) - 1)),
        low_(fill(std::min(entry.low, kSigned))),
        below_low_(entry.low == 0 ? fill(~std::uint64_t{0})
                                  : fill(std::min(entry.low - 1, kSigned))),
        found_(entry.found == nullptr ? unused
                                      : static_cast<std::uint32_t*>(entry.found) + entry.inside),
        kept_(entry.found == nullptr ? 0 : -1) {}

  // Inlined, or all of this would be in memory.
  [[gnu::always_inline]] void take(Key key) {
    const auto reaching_high = V::above(key, below_high_);
    above_ = V::count_in(above_, V::above(key, high_));
    from_high_ = V::count_in(from_high_, reaching_high);
    from_low_ = V::count_in(from_low_, V::above(key, below_low_));
    const auto inside = static_cast<typename V::Mask>(V::above(key, low_) & ~reaching_high);
    inside_ += V::append(inside, key, found_ + (inside_ & kept_));
  }

  void add_to(SelectEntry& entry) const {
    const std::int64_t above = V::total(above_);
    const std::int64_t from_high = V::total(from_high_);
    entry.above += above;
    entry.at_high += from_high - above;
    entry.inside += inside_;
    entry.at_low += V::total(from_low_) - from_high - inside_;
  }

 private:
  static Key fill(std::uint64_t key) { return V::fill_key(static_cast<std::uint32_t>(key)); }

  const Key high_, below_high_, low_, below_low_;
  Key above_ = V::no_bits();
  Key from_high_ = V::no_bits();
  Key from_low_ = V::no_bits();
  std::int64_t inside_ = 0;
  std::uint32_t* const found_;
  const std::int64_t kept_;  // all ones if keys are gathered
};

// Whole vectors of keys, key_at(i) being those from i on, for several entries at once. Returns how
// many elements they held. `key_at` is a copy, which no key that is stored can change.
template <typename V, int... e, typename KeyAt>
std::int64_t scan_vectors(std::integer_sequence<int, e...>, SelectEntry* entries,
                          std::int64_t count, const KeyAt key_at) {
  std::uint32_t unused[V::kWidth];
  Scanned<V> scanned[] = {Scanned<V>(entries[e], unused)...};
  std::int64_t done = 0;
  for (; done + V::kWidth <= count; done += V::kWidth) {
    const auto key = key_at(done);
    (scanned[e].take(key), ...);
  }
  (scanned[e].add_to(entries[e]), ...);
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

// Any keys.
template <typename Real>
void scan_any(SelectEntry* entries, int n, const Operand* base, const SelectOf& of, Range range,
              void* scratch) {
  using V = VectorFor<Real>;
  for_each_key_chunk<Real>(
      entries, n, base, of, range, scratch,
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
}

// A run of one task vector, of which all magnitudes have the same factor or (null) none, keys in
// registers as far as whole vectors go; returns how many elements it did.
template <typename V>
std::int64_t scan_run(SelectEntry* entries, int n, const Operand* base, const double* factor,
                      Range range) {
  std::int64_t done = 0;
  if constexpr (V::kWidth > 0) {
    with_dtype(&entries[0].tensor, 1, base, [&](auto dtype) {
      const VectorInput<V, dtype()> tensor(entries[0].tensor, range.begin);
      const VectorInput<V, dtype()> origin(*base, range.begin);
      const auto delta = [=](std::int64_t i) { return V::subtract(tensor[i], origin[i]); };
      if (factor == nullptr) {
        done = scan_alike<V>(entries, n, range.count,
                             [=](std::int64_t i) { return V::magnitude_key(delta(i)); });
      } else {
        const auto scale = V::fill(static_cast<float>(*factor));
        done = scan_alike<V>(entries, n, range.count, [=](std::int64_t i) {
          return V::magnitude_key(V::multiply(delta(i), scale));
        });
      }
    });
  }
  return done;
}

// Rows shorter than this are not worth their own loop over vectors.
constexpr std::int64_t kShort = 64;

// All entries of one tensor.
template <typename Real>
void scan_tensor(SelectEntry* entries, int n, const Operand* base, const SelectOf& of, Range range,
                 void* scratch) {
  const Lines& lines = of.factors.lines;
  const bool scaled = of.factors.values != nullptr;
  if (base == nullptr || of.apart != nullptr ||
      (scaled && (lines.strided || lines.length < kShort))) {
    scan_any<Real>(entries, n, base, of, range, scratch);
    return;
  }
  const auto scan_part = [&](Range part, const double* factor) {
    const std::int64_t done = scan_run<VectorFor<Real>>(entries, n, base, factor, part);
    scan_any<Real>(entries, n, base, of, {part.begin + done, part.count - done}, scratch);
  };
  if (!scaled) {
    scan_part(range, nullptr);
    return;
  }
  for_each_line(lines, range.begin, static_cast<int>(range.count),
                [&](int first, int end, std::int64_t row) {
                  scan_part({range.begin + first, end - first}, of.factors.values + row);
                });
}

template <typename Real>
void scan_as(SelectEntry* entries, int n, const Operand* base, const SelectOf& of, Range range,
             void* scratch) {
  for (int e = 0; e < n; ++e) {
    entries[e].above = entries[e].at_high = entries[e].inside = entries[e].at_low = 0;
    entries[e].zeros = 0;
  }
  for (int e = 0; e < n;) {
    const int alike = count_alike(entries + e, n - e);
    scan_tensor<Real>(entries + e, alike, base, of, range, scratch);
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
