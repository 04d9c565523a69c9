// The keys that select orders: bit patterns of magnitudes of task vectors, of those times a factor
// a line, or of how far all tensors are apart. As signed integers, which they never need the sign
// of: -1 is no key.
#pragma once

#include "common/cuda/launch.cuh"
#include "common/cuda/lines.cuh"
#include "select/cuda/select.h"

namespace pymerge::cuda {

enum class How { kDelta, kLines, kSpread };

inline How how_of(const Ordered& ordered) {
  return ordered.share >= 0               ? How::kSpread
         : ordered.factors.values.empty() ? How::kDelta
                                          : How::kLines;
}

template <typename Real>
using KeyOf = std::conditional_t<sizeof(Real) == 4, std::int32_t, std::int64_t>;
template <typename Key>
using Unsigned = std::make_unsigned_t<Key>;

template <typename Real>
struct KeyParams {
  std::int64_t count;
  int n;      // tensors
  int kinds;  // whose keys there are: 1 of how far they are apart
  bool by_vectors;
  bool has_base;
  Source base;
  Table<Source> tensors;
  const Real* factors;
  Lines lines;
};

// n elements' keys, one kind after the other.
template <typename Format, How how, int n>
struct KeyReader {
  using Real = typename Format::Real;
  using Key = KeyOf<Real>;
  using Raw = typename Format::template Raw<n>;
  Raw base;
  Raw tensor;

  // What all kinds need; then what one does; both before any of it is used.
  __device__ __forceinline__ void load_base(const KeyParams<Real>& p, std::int64_t at) {
    if (how != How::kSpread && p.has_base) base = Format::template load<n>(p.base, at);
  }
  __device__ __forceinline__ void load(const KeyParams<Real>& p, int kind, std::int64_t at) {
    if (how != How::kSpread) tensor = Format::template load<n>(p.tensors[kind], at);
  }

  __device__ __forceinline__ void get(const KeyParams<Real>& p, std::int64_t at, Key* keys) const {
    Real values[n];
    if constexpr (how == How::kSpread) {
      spread(p, at, values);
    } else {
      Format::template decode<n>(tensor, values);
      if (p.has_base) {
        Real origin[n];
        Format::template decode<n>(base, origin);
#pragma unroll
        for (int i = 0; i < n; ++i) values[i] = values[i] - origin[i];
      }
    }
    if constexpr (how == How::kLines) {
      for_lines<n>(p.lines, at,
                   [&](int i, std::int64_t line) { values[i] = values[i] * p.factors[line]; });
    }
#pragma unroll
    for (int i = 0; i < n; ++i) keys[i] = static_cast<Key>(key_of(values[i]));
  }

 private:
  // The sum over all pairs, in order, of their squared differences.
  static __device__ __forceinline__ void spread(const KeyParams<Real>& p, std::int64_t at,
                                                Real (&out)[n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) out[i] = 0;
    for (int left = 0; left < p.n; ++left) {
      Real a[n];
      Format::template decode<n>(Format::template load<n>(p.tensors[left], at), a);
      for (int right = left + 1; right < p.n; ++right) {
        Real b[n];
        Format::template decode<n>(Format::template load<n>(p.tensors[right], at), b);
#pragma unroll
        for (int i = 0; i < n; ++i) {
          const Real apart = a[i] - b[i];
          out[i] = out[i] + apart * apart;
        }
      }
    }
  }
};

// One element's key, however it is made: for looks here and there.
template <typename Real>
__device__ __forceinline__ KeyOf<Real> key_at(const KeyParams<Real>& p, How how, int kind,
                                              std::int64_t at) {
  KeyOf<Real> key;
  const auto read = [&](auto reader) {
    reader.load_base(p, at);
    reader.load(p, kind, at);
    reader.get(p, at, &key);
  };
  if (how == How::kSpread) {
    read(KeyReader<Mixed<Real>, How::kSpread, 1>{});
  } else if (how == How::kLines) {
    read(KeyReader<Mixed<Real>, How::kLines, 1>{});
  } else {
    read(KeyReader<Mixed<Real>, How::kDelta, 1>{});
  }
  return key;
}

// What is ordered, with what of it lies on the device.
template <typename Real>
class Scores {
 public:
  Scores(const Stream& stream, const Ordered& ordered)
      : how(how_of(ordered)),
        tensors_(stream, sources_of(ordered.inputs)),
        factors_(stream, to_reals<Real>(ordered.factors.values)),
        params{ordered.inputs.count,
               ordered.inputs.size(),
               how == How::kSpread ? 1 : ordered.inputs.size(),
               is_aligned(ordered.inputs),
               ordered.inputs.has_base,
               source_of(ordered.inputs.base),
               tensors_.get(),
               factors_.data(),
               ordered.factors.lines} {}

  const How how;

 private:
  const HostTable<Source> tensors_;
  const DeviceArray<Real> factors_;

 public:
  const KeyParams<Real> params;
};

}  // namespace pymerge::cuda
