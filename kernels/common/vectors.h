// Loops over explicit vectors, where those of a level (simd_v3.h, simd_v4.h) beat what a compiler
// makes of plain loops. Everything here is float32; the kernels' plain loops do the rest, and are
// the same arithmetic.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "common/canonical.h"
#include "common/chunk.h"
#include "common/simd.h"
#include "core/operand.h"

namespace pymerge {
namespace {

// The vectors for a compute type; float64 has none.
template <typename Real>
using VectorFor = std::conditional_t<std::is_same_v<Real, float>, simd::Vector, plain::Vector>;

// A tensor of `dtype` from element `begin` on: [i] is the kWidth decoded elements from begin + i
// on. Made before a loop, so that the compiler need not fear that a store moves the tensor.
template <typename V, DType dtype>
class VectorInput {
 public:
  VectorInput() = default;
  VectorInput(const Operand& tensor, std::int64_t begin)
      : data_(static_cast<const std::byte*>(tensor.data) +
              (begin - tensor.first) * item_size(dtype)) {}

  auto operator[](std::int64_t i) const {
    if constexpr (dtype == DType::kBF16) {
      return V::decode_bf16(static_cast<const plain::Half*>(data_) + i);
    } else if constexpr (dtype == DType::kF16) {
      return V::decode_f16(static_cast<const plain::Half*>(data_) + i);
    } else {
      return V::load(static_cast<const plain::Float*>(data_) + i);
    }
  }

 private:
  const void* data_ = nullptr;
};

// Appends the keys in [low, low + width] to `out`, in order; returns how many. `out` has room for
// n.
template <typename V, typename Key>
inline int append_in_range(const Key* keys, int n, Key low, Key width, Key* out) {
  int count = 0;
  int i = 0;
  if constexpr (V::kWidth > 0) {
    const auto lows = V::fill_key(low);
    const auto widths = V::fill_key(width);
    for (; i + V::kWidth <= n; i += V::kWidth) {
      const auto key = V::load_keys(keys + i);
      count += V::append(V::within(key, lows, widths), key, out + count);
    }
  }
  for (; i < n; ++i) {
    out[count] = keys[i];
    count += static_cast<Key>(keys[i] - low) <= width ? 1 : 0;
  }
  return count;
}

// Calls body(std::integral_constant<DType, d>) if all tensors (and the base) are of one dtype d
// that vectors decode; returns whether it did.
template <typename Body>
inline bool with_dtype(const Operand* tensors, int n, const Operand* base, const Body& body) {
  const DType dtype = tensors[0].dtype;
  const bool same =
      std::all_of(tensors, tensors + n, [=](const Operand& t) { return t.dtype == dtype; });
  if (!same || (base != nullptr && base->dtype != dtype)) return false;
  switch (dtype) {
    case DType::kBF16:
      body(std::integral_constant<DType, DType::kBF16>{});
      return true;
    case DType::kF16:
      body(std::integral_constant<DType, DType::kF16>{});
      return true;
    case DType::kF32:
      body(std::integral_constant<DType, DType::kF32>{});
      return true;
    default:
      return false;
  }
}

// Calls body(std::integral_constant<int, n>) for n in 1 .. most; returns whether it did.
template <int most, typename Body>
inline bool with_count(int n, const Body& body) {
  if constexpr (most == 0) {
    return false;
  } else {
    if (n != most) return with_count<most - 1>(n, body);
    body(std::integral_constant<int, most>{});
    return true;
  }
}

}  // namespace
}  // namespace pymerge
