// The few helpers that compilers do not vectorize well, as plain loops: the generic level, and the
// oracle that the levels' own versions are tested against.
#pragma once

#include <cstdint>
#include <cstring>

namespace pymerge {
namespace {
namespace plain {

inline float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline std::uint32_t to_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Stored elements, wherever they lie.
using Half [[gnu::aligned(1), gnu::may_alias]] = std::uint16_t;
using Float [[gnu::aligned(1), gnu::may_alias]] = float;

// float16 -> float32, exact. The exponent is rebiased by a multiplication, which also makes
// float16's denormals normal; infinities and NaN are patched in.
inline void decode_f16(const Half* in, int n, float* out) {
  for (int i = 0; i < n; ++i) {
    const std::uint32_t h = in[i];
    const std::uint32_t sign = (h & 0x8000u) << 16;
    const float scaled = from_bits((h & 0x7fffu) << 13) * 0x1p112f;
    const std::uint32_t special = (h & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
    out[i] = from_bits(to_bits(scaled) | special | sign);
  }
}

// float32 -> float16, to nearest even; NaN becomes the canonical 0x7e00.
inline void encode_f16(const float* in, int n, Half* out) {
  for (int i = 0; i < n; ++i) {
    const std::uint32_t bits = to_bits(in[i]);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    // Normal results: round the 13 dropped bits in integers (a carry may reach the exponent).
    const std::uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
    const std::uint32_t normal = rounded >> 13;
    // Denormal results: adding 0.5 leaves the float16 denormal in the low bits, rounded to even.
    const std::uint32_t tiny = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000u;
    std::uint32_t half = magnitude < 0x38800000u ? tiny : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half;
    half |= (bits >> 16) & 0x8000u;
    half = magnitude > 0x7f800000u ? 0x7e00u : half;
    out[i] = static_cast<std::uint16_t>(half);
  }
}

// Philox4x32-7 on the counters first .. first + 127, laid out as random.h states.
inline constexpr int kCounters = 128;
inline constexpr int kRounds = 7;
inline constexpr std::uint32_t kMultipliers[2] = {0xD2511F53u, 0xCD9E8D57u};
inline constexpr std::uint32_t kWeyl[2] = {0x9E3779B9u, 0xBB67AE85u};

inline void draw_block(std::uint64_t key, std::uint64_t first, std::uint16_t* draws) {
  // 128 divides 2^32: the high word is the same for the whole block.
  const auto low = static_cast<std::uint32_t>(first);
  const auto high = static_cast<std::uint32_t>(first >> 32);
  for (int j = 0; j < kCounters; ++j) {
    std::uint32_t c0 = low + static_cast<std::uint32_t>(j);
    std::uint32_t c1 = high;
    std::uint32_t c2 = 0;
    std::uint32_t c3 = 0;
    auto k0 = static_cast<std::uint32_t>(key);
    auto k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const std::uint64_t p0 = std::uint64_t{kMultipliers[0]} * c0;
      const std::uint64_t p1 = std::uint64_t{kMultipliers[1]} * c2;
      c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<std::uint32_t>(p1);
      c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<std::uint32_t>(p0);
      k0 += kWeyl[0];
      k1 += kWeyl[1];
    }
    const std::uint32_t words[4] = {c0, c1, c2, c3};
    for (int w = 0; w < 4; ++w) {
      draws[(2 * w) * kCounters + j] = static_cast<std::uint16_t>(words[w]);
      draws[(2 * w + 1) * kCounters + j] = static_cast<std::uint16_t>(words[w] >> 16);
    }
  }
}

// A block's draws as one bit each, set where the draw is below `limit`; and back, to draws of 0
// where the bit is set, else 65535.
inline constexpr int kDraws = 8 * kCounters;

inline void pack_draws(const std::uint16_t* draws, std::uint32_t limit, std::uint8_t* bits) {
  for (int i = 0; i < kDraws / 8; ++i) {
    unsigned byte = 0;
    for (int k = 0; k < 8; ++k) byte |= (draws[8 * i + k] < limit ? 1u : 0u) << k;
    bits[i] = static_cast<std::uint8_t>(byte);
  }
}

inline void unpack_draws(const std::uint8_t* bits, std::uint16_t* draws) {
  for (int i = 0; i < kDraws; ++i) draws[i] = (bits[i / 8] >> (i % 8) & 1) != 0 ? 0 : 0xffff;
}

inline constexpr int kClasses = 256;

// out[i] = table[classes[i]]; `counts`: how often each class occurs.
inline void look_up(const std::uint16_t* table, [[maybe_unused]] const std::uint32_t* counts,
                    const std::uint8_t* classes, int n, std::uint16_t* out) {
  for (int i = 0; i < n; ++i) out[i] = table[classes[i]];
}

// No vectors of its own: what needs them is written as loops for the compiler.
struct Vector {
  static constexpr int kWidth = 0;
};

}  // namespace plain
}  // namespace
}  // namespace pymerge
