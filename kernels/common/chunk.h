// Decode a run of a tensor to the compute type, encode it back: the only places that know storage.
// Runs are at most one canonical block, so they live in L1.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/canonical.h"
#include "common/simd.h"
#include "core/operand.h"

namespace pymerge {
namespace {

template <typename Real>
struct BitsOf;
template <>
struct BitsOf<float> {
  using type = std::uint32_t;
  static constexpr type kInfinity = 0x7f800000u;
  static constexpr type kQuietNan = 0x7fc00000u;
};
template <>
struct BitsOf<double> {
  using type = std::uint64_t;
  static constexpr type kInfinity = 0x7ff0000000000000u;
  static constexpr type kQuietNan = 0x7ff8000000000000u;
};
template <typename Real>
using Bits = typename BitsOf<Real>::type;

template <typename Real>
inline Bits<Real> bits_of(Real value) {
  Bits<Real> bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
template <typename Real>
inline Real real_of(Bits<Real> bits) {
  Real value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The magnitude's bit pattern, which orders like the magnitude; every NaN is one value, the
// largest.
template <typename Real>
inline Bits<Real> magnitude_key(Real value) {
  const Bits<Real> key = bits_of(value) & static_cast<Bits<Real>>(~Bits<Real>{0} >> 1);
  return key > BitsOf<Real>::kInfinity ? BitsOf<Real>::kQuietNan : key;
}

// Elements that need not be aligned. No templates: of a type that depends on a parameter GCC
// forgets the attribute.
using Double [[gnu::aligned(1), gnu::may_alias]] = double;
using Word [[gnu::aligned(1), gnu::may_alias]] = std::uint32_t;
using LongWord [[gnu::aligned(1), gnu::may_alias]] = std::uint64_t;
inline float load(const void* data, std::int64_t at, float) {
  return static_cast<const plain::Float*>(data)[at];
}
inline double load(const void* data, std::int64_t at, double) {
  return static_cast<const Double*>(data)[at];
}
inline void store(std::uint32_t bits, void* data, int at) { static_cast<Word*>(data)[at] = bits; }
inline void store(std::uint64_t bits, void* data, int at) {
  static_cast<LongWord*>(data)[at] = bits;
}

template <typename From, typename Real>
inline void widen(const void* data, std::int64_t at, int n, Real* __restrict out) {
  for (int i = 0; i < n; ++i) out[i] = static_cast<Real>(load(data, at + i, From{}));
}

// Elements [begin, begin + n) of a tensor, n <= kBlock, exactly.
template <typename Real>
inline void decode(const Operand& tensor, std::int64_t begin, int n, Real* __restrict out) {
  const std::int64_t at = begin - tensor.first;
  switch (tensor.dtype) {
    case DType::kBF16: {
      const auto* in = static_cast<const plain::Half*>(tensor.data) + at;
      for (int i = 0; i < n; ++i) {
        out[i] = plain::from_bits(static_cast<std::uint32_t>(in[i]) << 16);
      }
      break;
    }
    case DType::kF16: {
      const auto* in = static_cast<const plain::Half*>(tensor.data) + at;
      if constexpr (std::is_same_v<Real, float>) {
        simd::decode_f16(in, n, out);
      } else {
        alignas(64) float narrow[kBlock];
        simd::decode_f16(in, n, narrow);
        for (int i = 0; i < n; ++i) out[i] = narrow[i];
      }
      break;
    }
    case DType::kF32:
      widen<float>(tensor.data, at, n, out);
      break;
    default:  // kF64: the plan makes such tasks compute in float64
      widen<double>(tensor.data, at, n, out);
      break;
  }
}

// float64 -> float32 so that a second rounding to a narrower type still is to nearest: truncate,
// and set the last bit if anything was lost ("round to odd").
inline float narrow_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  const double back = static_cast<double>(nearest);
  std::uint32_t bits = plain::to_bits(nearest);
  const bool above = (back > value) == (value > 0) && back != value;  // rounded away from zero
  bits -= above ? 1u : 0u;
  bits |= back != value ? 1u : 0u;
  return value == value ? plain::from_bits(bits) : nearest;
}

// encode_bf16 as far as whole pairs of vectors go; returns how many values they held.
template <typename V>
inline int encode_bf16_vectors(const float* in, int n, plain::Half* out, std::uint32_t& bad) {
  int done = 0;
  if constexpr (V::kWidth > 0) {
    auto worst = V::no_bits();
    for (; done + 2 * V::kWidth <= n; done += 2 * V::kWidth) {
      V::store_bf16(out + done, V::load(in + done), V::load(in + done + V::kWidth), worst);
    }
    bad = V::any_above(worst, 0x7f7fffffu) ? 1u : 0u;
  }
  return done;
}

inline unsigned encode_bf16(const float* __restrict in, int n, plain::Half* __restrict out) {
  std::uint32_t bad = 0;
  for (int i = encode_bf16_vectors<simd::Vector>(in, n, out, bad); i < n; ++i) {
    const std::uint32_t bits = plain::to_bits(in[i]);
    const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const std::uint32_t half = (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded;
    bad |= (half & 0x7f80u) == 0x7f80u ? 1u : 0u;
    out[i] = static_cast<std::uint16_t>(half);
  }
  return bad;
}

template <typename To, typename Real>
inline unsigned encode_plain(const Real* __restrict in, int n, void* data) {
  unsigned bad = 0;
  for (int i = 0; i < n; ++i) {
    const Bits<To> bits = bits_of(static_cast<To>(in[i]));
    const Bits<To> magnitude = bits & static_cast<Bits<To>>(~Bits<To>{0} >> 1);
    bad |= magnitude >= BitsOf<To>::kInfinity ? 1u : 0u;
    store(magnitude > BitsOf<To>::kInfinity ? BitsOf<To>::kQuietNan : bits, data, i);
  }
  return bad;
}

inline unsigned encode_halves(const float* in, int n, DType dtype, plain::Half* out) {
  if (dtype == DType::kBF16) return encode_bf16(in, n, out);
  simd::encode_f16(in, n, out);
  unsigned bad = 0;
  for (int i = 0; i < n; ++i) bad |= (out[i] & 0x7c00u) == 0x7c00u ? 1u : 0u;
  return bad;
}

// Rounds n <= kBlock values once, to nearest even; NaN becomes canonical. `out` points at the first
// one's place. Returns whether any stored value is not finite.
template <typename Real>
inline bool encode(const Real* in, int n, DType dtype, void* out) {
  if (dtype == DType::kF32) return encode_plain<float>(in, n, out) != 0;
  if (dtype == DType::kF64) return encode_plain<double>(in, n, out) != 0;
  auto* halves = static_cast<plain::Half*>(out);
  if constexpr (std::is_same_v<Real, float>) {
    return encode_halves(in, n, dtype, halves) != 0;
  } else {
    alignas(64) float narrow[kBlock];
    for (int i = 0; i < n; ++i) narrow[i] = narrow_to_odd(in[i]);
    return encode_halves(narrow, n, dtype, halves) != 0;
  }
}

// Calls body(begin, n) for the parts of [range.begin, range.begin + range.count) that lie in one
// canonical block each.
template <typename Body>
inline void for_each_chunk(Range range, const Body& body) {
  const std::int64_t end = range.begin + range.count;
  for (std::int64_t at = range.begin; at < end;) {
    const std::int64_t edge = (at / kBlock + 1) * kBlock;
    const std::int64_t stop = edge < end ? edge : end;
    body(at, static_cast<int>(stop - at));
    at = stop;
  }
}

}  // namespace
}  // namespace pymerge
