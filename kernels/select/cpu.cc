// select on the CPU: one pass = decode, subtract, compare; only keys inside the bracket are stored.
#include "common/rules.h"
#include "select/select.h"

namespace pymerge {
namespace {

template <typename Real>
struct Workspace {
  Real base[kBlock];
  Real delta[kBlock];
  Bits<Real> keys[kBlock];
};

template <typename Real>
void chunk_keys(const Operand& tensor, const Real* base, std::int64_t begin, int n,
                Real* __restrict delta, Bits<Real>* __restrict keys) {
  decode_delta(tensor, base, begin, n, delta);
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
      chunk_keys(entries[e].tensor, origin, begin, count, space->delta, space->keys);
      body(entries[e], space->keys, count);
    }
  });
}

template <typename Real>
void scan_as(SelectEntry* entries, int n, const Operand* base, Range tile, void* scratch) {
  using Key = Bits<Real>;
  for (int e = 0; e < n; ++e) entries[e].above = entries[e].inside = 0;
  for_each_key_chunk<Real>(entries, n, base, tile, scratch,
                           [](SelectEntry& entry, const Key* keys, int count) {
                             const auto low = static_cast<Key>(entry.low);
                             const auto high = static_cast<Key>(entry.high);
                             const auto width = static_cast<Key>(high - low);
                             Key above = 0;
                             for (int i = 0; i < count; ++i) above += keys[i] > high ? 1 : 0;
                             entry.above += static_cast<std::int64_t>(above);
                             if (entry.found != nullptr) {
                               Key* const end = static_cast<Key*>(entry.found) + entry.inside;
                               entry.inside += simd::append_in_range(keys, count, low, width, end);
                             } else {
                               Key inside = 0;
                               for (int i = 0; i < count; ++i)
                                 inside += static_cast<Key>(keys[i] - low) <= width ? 1 : 0;
                               entry.inside += static_cast<std::int64_t>(inside);
                             }
                           });
}

template <typename Real>
void histogram_as(SelectEntry* entries, int n, const Operand* base, Range tile, void* scratch) {
  using Key = Bits<Real>;
  for_each_key_chunk<Real>(
      entries, n, base, tile, scratch, [](SelectEntry& entry, const Key* keys, int count) {
        const auto low = static_cast<Key>(entry.low);
        const auto width = static_cast<Key>(entry.high - entry.low);
        for (int i = 0; i < count; ++i) {
          const auto offset = static_cast<Key>(keys[i] - low);
          if (offset <= width) {
            __atomic_fetch_add(entry.buckets + (offset >> entry.shift), 1u, __ATOMIC_RELAXED);
          }
        }
      });
}

template <typename Real>
void keys_as(const Operand& tensor, const Operand* base, Range range, void* keys, void* scratch) {
  SelectEntry entry{};
  entry.tensor = tensor;
  auto* out = static_cast<Bits<Real>*>(keys);
  for_each_key_chunk<Real>(&entry, 1, base, range, scratch,
                           [&out](SelectEntry&, const Bits<Real>* chunk, int count) {
                             for (int i = 0; i < count; ++i) out[i] = chunk[i];
                             out += count;
                           });
}

void keys(const Operand& tensor, const Operand* base, Compute compute, Range range, void* out,
          void* scratch) {
  compute == Compute::kFloat64 ? keys_as<double>(tensor, base, range, out, scratch)
                               : keys_as<float>(tensor, base, range, out, scratch);
}

void scan(SelectEntry* entries, int n, const Operand* base, Compute compute, Range tile,
          void* scratch) {
  compute == Compute::kFloat64 ? scan_as<double>(entries, n, base, tile, scratch)
                               : scan_as<float>(entries, n, base, tile, scratch);
}

void histogram(SelectEntry* entries, int n, const Operand* base, Compute compute, Range tile,
               void* scratch) {
  compute == Compute::kFloat64 ? histogram_as<double>(entries, n, base, tile, scratch)
                               : histogram_as<float>(entries, n, base, tile, scratch);
}

}  // namespace

PYMERGE_EXPORT(SelectKernel, select) = {keys, scan, histogram, sizeof(Workspace<double>)};

}  // namespace pymerge
