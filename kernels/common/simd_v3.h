// x86-64-v3 (AVX2, F16C) versions of simd_plain.h.
#pragma once

#include <immintrin.h>

#include "common/simd_plain.h"

namespace pymerge {
namespace {
namespace v3 {

using plain::Float;
using plain::Half;

inline void decode_f16(const Half* in, int n, float* out) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
  plain::decode_f16(in + i, n - i, out + i);
}

inline void encode_f16(const float* in, int n, Half* out) {
  const __m256 canonical = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 value = _mm256_loadu_ps(in + i);
    const __m256 clean =
        _mm256_blendv_ps(value, canonical, _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(clean, _MM_FROUND_TO_NEAREST_INT));
  }
  plain::encode_f16(in + i, n - i, out + i);
}

// A counter word in the low half of each 64-bit lane, where the widening multiplication wants it;
// what is left in the high halves never counts.
inline void draw_block(std::uint64_t key, std::uint64_t first, std::uint16_t* draws) {
  using plain::kCounters, plain::kRounds;
  __m256i keys[kRounds][2];
  for (int i = 0; i < 2; ++i) {
    auto word = static_cast<std::uint32_t>(key >> (32 * i));
    for (int round = 0; round < kRounds; ++round, word += plain::kWeyl[i]) {
      keys[round][i] = _mm256_set1_epi64x(word);
    }
  }
  const __m256i m0 = _mm256_set1_epi64x(plain::kMultipliers[0]);
  const __m256i m1 = _mm256_set1_epi64x(plain::kMultipliers[1]);
  const __m256i high = _mm256_set1_epi64x(static_cast<std::int64_t>(first >> 32));
  // The words that eight counters give: four of `counter`, and those + 4.
  const auto make_words = [&](__m256i counter, __m256i* out) {
    __m256i words[2][4];
    for (auto& c : words) {
      c[0] = counter;
      c[1] = high;
      c[2] = c[3] = _mm256_setzero_si256();
      counter = _mm256_add_epi64(counter, _mm256_set1_epi64x(4));
      for (int round = 0; round < kRounds; ++round) {
        const __m256i p0 = _mm256_mul_epu32(c[0], m0);
        const __m256i p1 = _mm256_mul_epu32(c[2], m1);
        const __m256i h0 = _mm256_xor_si256(_mm256_srli_epi64(p1, 32), keys[round][0]);
        const __m256i h1 = _mm256_xor_si256(_mm256_srli_epi64(p0, 32), keys[round][1]);
        c[0] = _mm256_xor_si256(h0, c[1]);
        c[2] = _mm256_xor_si256(h1, c[3]);
        c[1] = p1;
        c[3] = p0;
      }
    }
    for (int w = 0; w < 4; ++w) {
      out[w] = _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(words[0][w]),
                                                     _mm256_castsi256_ps(words[1][w]), 0x88));
    }
  };
  // Shuffles work on 128-bit halves: from counters in this order they make the words of eight even
  // ones in a row, and those of the odd ones fit between.
  __m256i counter =
      _mm256_add_epi64(_mm256_set1_epi64x(static_cast<std::int64_t>(first & 0xffffffffu)),
                       _mm256_setr_epi64x(0, 2, 8, 10));
  for (int j = 0; j < kCounters; j += 16) {
    __m256i even[4];
    __m256i odd[4];
    make_words(counter, even);
    make_words(_mm256_add_epi64(counter, _mm256_set1_epi64x(1)), odd);
    counter = _mm256_add_epi64(counter, _mm256_set1_epi64x(16));
    constexpr int kOdd = 0xaa;
    const auto store = [=](int half, __m256i halves) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(draws + half * kCounters + j), halves);
    };
    for (int w = 0; w < 4; ++w) {
      store(2 * w, _mm256_blend_epi16(even[w], _mm256_slli_epi32(odd[w], 16), kOdd));
      store(2 * w + 1, _mm256_blend_epi16(_mm256_srli_epi32(even[w], 16), odd[w], kOdd));
    }
  }
}

inline void pack_draws(const std::uint16_t* draws, std::uint32_t limit, std::uint8_t* bits) {
  if (limit == 0) return plain::pack_draws(draws, limit, bits);
  const __m256i most = _mm256_set1_epi16(static_cast<std::int16_t>(limit - 1));
  const auto below = [&](const std::uint16_t* at) {
    const __m256i draw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return _mm256_cmpeq_epi16(_mm256_min_epu16(draw, most), draw);
  };
  for (int i = 0; i < plain::kDraws; i += 32) {
    constexpr int kUncross = 0xd8;  // what 128-bit halves do to the order of 64-bit lanes, undone
    const __m256i bytes = _mm256_packs_epi16(below(draws + i), below(draws + i + 16));
    const int mask = _mm256_movemask_epi8(_mm256_permute4x64_epi64(bytes, kUncross));
    std::memcpy(bits + i / 8, &mask, sizeof mask);
  }
}

inline void unpack_draws(const std::uint8_t* bits, std::uint16_t* draws) {
  const __m256i lanes = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096,
                                          8192, 16384, -32768);
  for (int i = 0; i < plain::kDraws; i += 16) {
    std::int16_t sixteen;
    std::memcpy(&sixteen, bits + i / 8, sizeof sixteen);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi16(sixteen), lanes);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(draws + i),
                        _mm256_cmpeq_epi16(set, _mm256_setzero_si256()));
  }
}

// A shuffle looks bytes up among sixteen, so classes are taken sixteen at a time, and those steps
// are left out of which no class occurs: about half of them in real rows.
inline void look_up(const std::uint16_t* table, const std::uint32_t* counts,
                    const std::uint8_t* classes, int n, std::uint16_t* out) {
  constexpr int kStep = 16;
  struct Step {
    __m256i first;
    __m256i low, high;  // bytes of what is looked up, twice
  };
  Step steps[plain::kClasses / kStep];
  int used = 0;
  for (int first = 0; first < plain::kClasses; first += kStep) {
    std::uint32_t any = 0;
    for (int k = 0; k < kStep; ++k) any |= counts[first + k];
    if (any == 0) continue;
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table + first));
    const auto pack = [](__m256i bytes) {
      const __m128i both =
          _mm_packus_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
      return _mm256_broadcastsi128_si256(both);
    };
    steps[used++] = {_mm256_set1_epi8(static_cast<char>(first)),
                     pack(_mm256_and_si256(words, _mm256_set1_epi16(0xff))),
                     pack(_mm256_srli_epi16(words, 8))};
  }
  // Saturates beyond the step to where a shuffle gives zero.
  const __m256i bias = _mm256_set1_epi8(0x80 - kStep);
  constexpr int kAtOnce = 2;
  int i = 0;
  for (; i + 32 * kAtOnce <= n; i += 32 * kAtOnce) {
    __m256i input[kAtOnce], low[kAtOnce], high[kAtOnce];
    for (int v = 0; v < kAtOnce; ++v) {
      input[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(classes + i + 32 * v));
      low[v] = high[v] = _mm256_setzero_si256();
    }
    for (int s = 0; s < used; ++s) {
      for (int v = 0; v < kAtOnce; ++v) {
        const __m256i index = _mm256_adds_epu8(_mm256_sub_epi8(input[v], steps[s].first), bias);
        low[v] = _mm256_or_si256(low[v], _mm256_shuffle_epi8(steps[s].low, index));
        high[v] = _mm256_or_si256(high[v], _mm256_shuffle_epi8(steps[s].high, index));
      }
    }
    for (int v = 0; v < kAtOnce; ++v) {
      const __m256i a = _mm256_unpacklo_epi8(low[v], high[v]);
      const __m256i b = _mm256_unpackhi_epi8(low[v], high[v]);
      auto* const to = reinterpret_cast<__m256i*>(out + i + 32 * v);
      _mm256_storeu_si256(to, _mm256_permute2x128_si256(a, b, 0x20));
      _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(a, b, 0x31));
    }
  }
  plain::look_up(table, counts, classes + i, n - i, out + i);
}

// For every mask of eight lanes those that are in it, in order; the rest is not read.
struct FirstLanes {
  constexpr FirstLanes() {
    for (int mask = 0; mask < 256; ++mask) {
      int count = 0;
      for (int lane = 0; lane < 8; ++lane) {
        if ((mask >> lane & 1) != 0) lanes[mask][count++] = static_cast<std::uint8_t>(lane);
      }
    }
  }
  std::uint8_t lanes[256][8] = {};
};
constexpr FirstLanes kFirst;

// Eight float32 lanes and what merging does with them; see simd.h.
struct Vector {
  using Real = __m256;
  using Key = __m256i;
  using Mask = __m256i;  // all ones or zero in each lane
  static constexpr int kWidth = 8;
  static constexpr int kTable = 8;

  static Real decode_bf16(const Half* in) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
  static Real decode_f16(const Half* in) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
  }
  static Real load(const Float* in) { return _mm256_loadu_ps(in); }
  static void store(float* out, Real x) { _mm256_storeu_ps(out, x); }
  // Rounds two vectors to bf16, NaN to the canonical one; `worst` becomes the largest magnitude so
  // far, as the bits of a float32 that was rounded but not cut.
  static void store_bf16(Half* out, Real first, Real second, Key& worst) {
    const __m256i a = _mm256_srli_epi32(round_bf16(first, worst), 16);
    const __m256i b = _mm256_srli_epi32(round_bf16(second, worst), 16);
    constexpr int kUncross = 0xd8;  // what 128-bit halves do to the order of 64-bit lanes, undone
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), kUncross);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), halves);
  }
  static __m256i round_bf16(Real x, Key& worst) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), last);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i rounded = _mm256_blendv_epi8(sum, _mm256_set1_epi32(0x7fc00000), nan);
    const __m256i magnitude = _mm256_and_si256(rounded, _mm256_set1_epi32(0x7fffffff));
    worst = _mm256_max_epu32(worst, magnitude);
    return rounded;
  }
  static bool any_above(Key keys, std::uint32_t bound) {
    return bits(_mm256_cmpgt_epi32(keys, fill_key(bound))) != 0;
  }
  static Real fill(float x) { return _mm256_set1_ps(x); }
  static Key load_keys(const std::uint32_t* in) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
  }
  static Key fill_key(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }

  static Real add(Real a, Real b) { return _mm256_add_ps(a, b); }
  static Real subtract(Real a, Real b) { return _mm256_sub_ps(a, b); }
  static Real multiply(Real a, Real b) { return _mm256_mul_ps(a, b); }
  static Real add_if(Mask mask, Real a, Real b) { return add(a, keep(mask, b)); }
  static Real keep(Mask mask, Real x) { return _mm256_and_ps(_mm256_castsi256_ps(mask), x); }
  // a b where the mask is set, else 0.
  static Real multiply_if(Mask mask, Real a, Real b) { return keep(mask, multiply(a, b)); }
  static Real magnitude(Real x) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
  }

  static Key magnitude_bits(Real x) { return _mm256_castps_si256(magnitude(x)); }
  // Of the result of an arithmetic operation: all its NaN are quiet, so the least of them is the
  // canonical one.
  static Key magnitude_key(Real x) {
    return _mm256_min_epu32(_mm256_castps_si256(magnitude(x)), _mm256_set1_epi32(0x7fc00000));
  }
  static Key shift_right(Key key, int bits) { return _mm256_srli_epi32(key, bits); }
  // The keys of two vectors, all below 65,536, as half words.
  static void store_narrow(std::uint16_t* out, Key first, Key second) {
    constexpr int kUncross = 0xd8;  // what 128-bit halves do to the order of 64-bit lanes, undone
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(first, second), kUncross);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), halves);
  }
  static Mask in_band(Key key, Key low, Key high) {
    return _mm256_andnot_si256(_mm256_cmpgt_epi32(low, key), _mm256_cmpgt_epi32(high, key));
  }
  static unsigned bits(Mask mask) {
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(mask)));
  }
  static int count(Mask mask) { return __builtin_popcount(bits(mask)); }
  // One more in the lanes under the mask; the sum over all lanes.
  static Key count_in(Key counts, Mask mask) { return _mm256_sub_epi32(counts, mask); }
  static std::int64_t total(Key counts) {
    alignas(32) std::int32_t lanes[kWidth];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), counts);
    std::int64_t sum = 0;
    for (const std::int32_t lane : lanes) sum += lane;
    return sum;
  }
  static Mask equal(Key a, Key b) { return _mm256_cmpeq_epi32(a, b); }
  static Mask above(Key key, Key bound) { return _mm256_cmpgt_epi32(key, bound); }
  static Mask within(Key key, Key low, Key width) {
    const __m256i shifted = _mm256_sub_epi32(key, low);
    return _mm256_cmpeq_epi32(_mm256_min_epu32(shifted, width), shifted);
  }
  // Stores the keys under the mask, in order; `out` has room for a whole vector.
  static int append(Mask mask, Key key, std::uint32_t* out) {
    const unsigned hits = bits(mask);
    const __m128i order = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kFirst.lanes[hits]));
    const __m256i keys = _mm256_permutevar8x32_epi32(key, _mm256_cvtepu8_epi32(order));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), keys);
    return __builtin_popcount(hits);
  }
  // Lanes from the bits from number i on, a multiple of the width.
  static Mask load_mask(const std::uint8_t* bits, int i) {
    const __m256i lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i all = _mm256_set1_epi8(static_cast<char>(bits[static_cast<unsigned>(i) / 8]));
    return _mm256_cmpeq_epi32(_mm256_and_si256(all, lanes), lanes);
  }

  static Mask not_negative(Real x) {
    return _mm256_castps_si256(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GE_OQ));
  }
  // Not <= 0 once its sign is flipped where `side` is not set: NaN always is.
  static Mask agrees(Real x, Mask side) {
    const __m256i sign = _mm256_set1_epi32(static_cast<int>(0x80000000u));
    const __m256i turn = _mm256_andnot_si256(side, sign);
    const __m256 turned = _mm256_xor_ps(x, _mm256_castsi256_ps(turn));
    return _mm256_castps_si256(_mm256_cmp_ps(turned, _mm256_setzero_ps(), _CMP_NLE_UQ));
  }
  // Halves of a vector in float64.
  using Wide = __m256d;
  static constexpr int kWide = 4;
  // Eight float64 rounded.
  static Real narrow(const double* in) {
    const __m128 low = _mm256_cvtpd_ps(_mm256_loadu_pd(in));
    return _mm256_set_m128(_mm256_cvtpd_ps(_mm256_loadu_pd(in + kWide)), low);
  }
  static Wide widen_low(Real x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
  static Wide widen_high(Real x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
  // |x| 2^-896 of the even and of the odd lanes, if finite: a float64 of that value has the bits of
  // the float32, shifted, denormals too. Two shifts are cheaper than a conversion.
  static Wide scaled_even(Real x) {
    const __m256i bits = _mm256_slli_epi64(_mm256_castps_si256(x), 33);
    return _mm256_castsi256_pd(_mm256_srli_epi64(bits, 4));
  }
  static Wide scaled_odd(Real x) {
    const __m256i magnitude = _mm256_set1_epi64x(0x7fffffff00000000);
    const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), magnitude);
    return _mm256_castsi256_pd(_mm256_srli_epi64(bits, 3));
  }
  static Wide add(Wide a, Wide b) { return _mm256_add_pd(a, b); }
  // a b + c for a and b that were float32: their product is exact, so this rounds like an addition.
  static Wide add_product(Wide a, Wide b, Wide c) { return _mm256_fmadd_pd(a, b, c); }
  static Wide load(const double* in) { return _mm256_loadu_pd(in); }
  static void store(double* out, Wide x) { _mm256_storeu_pd(out, x); }

  static Key no_bits() { return _mm256_setzero_si256(); }
  static Key set_bit(Key bits, Mask mask, int bit) {
    return _mm256_or_si256(bits, _mm256_and_si256(mask, _mm256_set1_epi32(1 << bit)));
  }
  static Real look_up(const float* table, Key index) {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
  }
};

}  // namespace v3
}  // namespace
}  // namespace pymerge
