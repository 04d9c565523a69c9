// x86-64-v4 (AVX-512) versions of simd_plain.h.
#pragma once

#include <immintrin.h>

#include "common/simd_plain.h"

namespace pymerge {
namespace {
namespace v4 {

using plain::Float;
using plain::Half;

inline void decode_f16(const Half* in, int n, float* out) {
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i));
    _mm512_storeu_ps(out + i, _mm512_cvtph_ps(halves));
  }
  plain::decode_f16(in + i, n - i, out + i);
}

inline void encode_f16(const float* in, int n, Half* out) {
  const __m512 canonical = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000));
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512 value = _mm512_loadu_ps(in + i);
    const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    const __m512 clean = _mm512_mask_blend_ps(nan, value, canonical);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                        _mm512_cvtps_ph(clean, _MM_FROUND_TO_NEAREST_INT));
  }
  plain::encode_f16(in + i, n - i, out + i);
}

// A counter word in the low half of each 64-bit lane, where the widening multiplication wants it;
// what is left in the high halves never counts.
inline void draw_block(std::uint64_t key, std::uint64_t first, std::uint16_t* draws) {
  using plain::kCounters, plain::kRounds;
  __m512i keys[kRounds][2];
  for (int i = 0; i < 2; ++i) {
    auto word = static_cast<std::uint32_t>(key >> (32 * i));
    for (int round = 0; round < kRounds; ++round, word += plain::kWeyl[i]) {
      keys[round][i] = _mm512_set1_epi64(word);
    }
  }
  const __m512i m0 = _mm512_set1_epi64(plain::kMultipliers[0]);
  const __m512i m1 = _mm512_set1_epi64(plain::kMultipliers[1]);
  const __m512i high = _mm512_set1_epi64(static_cast<std::int64_t>(first >> 32));
  // The low words of the sixteen lanes' low halves, then their high words.
  alignas(64) std::int16_t order[32];
  for (int i = 0; i < 16; ++i) {
    order[i] = static_cast<std::int16_t>(4 * i);
    order[16 + i] = static_cast<std::int16_t>(4 * i + 1);
  }
  const __m512i pick = _mm512_load_si512(order);
  const __m512i eight = _mm512_set1_epi64(8);
  __m512i counter =
      _mm512_add_epi64(_mm512_set1_epi64(static_cast<std::int64_t>(first & 0xffffffffu)),
                       _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
  for (int j = 0; j < kCounters; j += 16) {
    __m512i words[2][4];
    for (auto& c : words) {
      c[0] = counter;
      c[1] = high;
      c[2] = c[3] = _mm512_setzero_si512();
      counter = _mm512_add_epi64(counter, eight);
    }
#pragma GCC unroll 7
    for (int round = 0; round < kRounds; ++round) {
      for (auto& c : words) {
        const __m512i p0 = _mm512_mul_epu32(c[0], m0);
        const __m512i p1 = _mm512_mul_epu32(c[2], m1);
        constexpr int kXor3 = 0x96;
        c[0] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c[1], keys[round][0], kXor3);
        c[2] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c[3], keys[round][1], kXor3);
        c[1] = p1;
        c[3] = p0;
      }
    }
    for (int w = 0; w < 4; ++w) {
      const __m512i halves = _mm512_permutex2var_epi16(words[0][w], pick, words[1][w]);
      auto* low = reinterpret_cast<__m256i*>(draws + (2 * w) * kCounters + j);
      auto* top = reinterpret_cast<__m256i*>(draws + (2 * w + 1) * kCounters + j);
      _mm256_storeu_si256(low, _mm512_castsi512_si256(halves));
      _mm256_storeu_si256(top, _mm512_extracti64x4_epi64(halves, 1));
    }
  }
}

inline void pack_draws(const std::uint16_t* draws, std::uint32_t limit, std::uint8_t* bits) {
  if (limit == 0) return plain::pack_draws(draws, limit, bits);
  const __m512i most = _mm512_set1_epi16(static_cast<std::int16_t>(limit - 1));
  for (int i = 0; i < plain::kDraws; i += 32) {
    const std::uint32_t mask = _mm512_cmple_epu16_mask(_mm512_loadu_si512(draws + i), most);
    std::memcpy(bits + i / 8, &mask, sizeof mask);
  }
}

inline void unpack_draws(const std::uint8_t* bits, std::uint16_t* draws) {
  for (int i = 0; i < plain::kDraws; i += 32) {
    std::uint32_t mask;
    std::memcpy(&mask, bits + i / 8, sizeof mask);
    _mm512_storeu_si512(draws + i, _mm512_movm_epi16(~mask));
  }
}

// The table stays in registers: a permutation looks up among 64 half words of it.
inline void look_up(const std::uint16_t* table, const std::uint32_t* counts,
                    const std::uint8_t* classes, int n, std::uint16_t* out) {
  __m512i words[8];
  for (int k = 0; k < 8; ++k) words[k] = _mm512_loadu_si512(table + 32 * k);
  const __m512i odd = _mm512_set1_epi16(64);
  const __m512i upper = _mm512_set1_epi16(128);
  int i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m512i index =
        _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(classes + i)));
    const __mmask32 is_odd = _mm512_test_epi16_mask(index, odd);
    const auto among = [&](const __m512i* half) {
      return _mm512_mask_mov_epi16(_mm512_permutex2var_epi16(half[0], index, half[1]), is_odd,
                                   _mm512_permutex2var_epi16(half[2], index, half[3]));
    };
    const __mmask32 is_upper = _mm512_test_epi16_mask(index, upper);
    _mm512_storeu_si512(out + i, _mm512_mask_mov_epi16(among(words), is_upper, among(words + 4)));
  }
  plain::look_up(table, counts, classes + i, n - i, out + i);
}

// Sixteen float32 lanes and what merging does with them; see simd.h.
struct Vector {
  using Real = __m512;
  using Key = __m512i;
  using Mask = __mmask16;
  static constexpr int kWidth = 16;
  static constexpr int kTable = 16;

  static Real decode_bf16(const Half* in) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  static Real decode_f16(const Half* in) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)));
  }
  static Real load(const Float* in) { return _mm512_loadu_ps(in); }
  static void store(float* out, Real x) { _mm512_storeu_ps(out, x); }
  // Rounds two vectors to bf16, NaN to the canonical one; `worst` becomes the largest magnitude so
  // far, as the bits of a float32 that was rounded but not cut.
  static void store_bf16(Half* out, Real first, Real second, Key& worst) {
    const __m512i a = round_bf16(first, worst);
    const __m512i b = round_bf16(second, worst);
    // The upper halves of all lanes, side by side.
    const __m512i upper =
        _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                         25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    _mm512_storeu_si512(out, _mm512_permutex2var_epi16(a, upper, b));
  }
  static __m512i round_bf16(Real x, Key& worst) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), last);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i rounded = _mm512_mask_mov_epi32(sum, nan, _mm512_set1_epi32(0x7fc00000));
    const __m512i magnitude = _mm512_and_si512(rounded, _mm512_set1_epi32(0x7fffffff));
    worst = _mm512_max_epu32(worst, magnitude);
    return rounded;
  }
  static bool any_above(Key keys, std::uint32_t bound) {
    return _mm512_cmpgt_epi32_mask(keys, fill_key(bound)) != 0;
  }
  static Real fill(float x) { return _mm512_set1_ps(x); }
  static Key load_keys(const std::uint32_t* in) { return _mm512_loadu_si512(in); }
  static Key fill_key(std::uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }

  static Real add(Real a, Real b) { return _mm512_add_ps(a, b); }
  static Real subtract(Real a, Real b) { return _mm512_sub_ps(a, b); }
  static Real multiply(Real a, Real b) { return _mm512_mul_ps(a, b); }
  static Real add_if(Mask mask, Real a, Real b) { return _mm512_mask_add_ps(a, mask, a, b); }
  static Real keep(Mask mask, Real x) { return _mm512_maskz_mov_ps(mask, x); }
  // a b where the mask is set, else 0.
  static Real multiply_if(Mask mask, Real a, Real b) { return _mm512_maskz_mul_ps(mask, a, b); }
  static Real magnitude(Real x) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)));
  }

  static Key magnitude_bits(Real x) { return _mm512_castps_si512(magnitude(x)); }
  // Of the result of an arithmetic operation: all its NaN are quiet, so the least of them is the
  // canonical one.
  static Key magnitude_key(Real x) {
    return _mm512_min_epu32(_mm512_castps_si512(magnitude(x)), _mm512_set1_epi32(0x7fc00000));
  }
  static Key shift_right(Key key, int bits) {
    return _mm512_srli_epi32(key, static_cast<unsigned>(bits));
  }
  // The keys of two vectors, all below 65,536, as half words.
  static void store_narrow(std::uint16_t* out, Key first, Key second) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(first));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + kWidth), _mm512_cvtepi32_epi16(second));
  }
  static Mask in_band(Key key, Key low, Key high) {
    return _mm512_mask_cmplt_epi32_mask(_mm512_cmpge_epi32_mask(key, low), key, high);
  }
  static unsigned bits(Mask mask) { return mask; }
  static int count(Mask mask) { return __builtin_popcount(mask); }
  // One more in the lanes under the mask; the sum over all lanes.
  static Key count_in(Key counts, Mask mask) {
    return _mm512_mask_add_epi32(counts, mask, counts, _mm512_set1_epi32(1));
  }
  static std::int64_t total(Key counts) { return _mm512_reduce_add_epi32(counts); }
  static Mask equal(Key a, Key b) { return _mm512_cmpeq_epi32_mask(a, b); }
  static Mask above(Key key, Key bound) { return _mm512_cmpgt_epi32_mask(key, bound); }
  static Mask within(Key key, Key low, Key width) {
    return _mm512_cmple_epu32_mask(_mm512_sub_epi32(key, low), width);
  }
  // Stores the keys under the mask, in order; `out` has room for a whole vector.
  static int append(Mask mask, Key key, std::uint32_t* out) {
    // Compress in a register, store whole: a compressing store is microcoded on Zen 4.
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(mask, key));
    return count(mask);
  }
  // Lanes from the bits from number i on, a multiple of the width.
  static Mask load_mask(const std::uint8_t* bits, int i) {
    Mask mask;
    std::memcpy(&mask, bits + static_cast<unsigned>(i) / 8, sizeof mask);
    return mask;
  }

  static Mask not_negative(Real x) {
    return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ);
  }
  // Not <= 0 once its sign is flipped where `side` is not set: NaN always is.
  static Mask agrees(Real x, Mask side) {
    const __m512i sign = _mm512_set1_epi32(static_cast<int>(0x80000000u));
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i turned = _mm512_mask_xor_epi32(bits, static_cast<__mmask16>(~side), bits, sign);
    return _mm512_cmp_ps_mask(_mm512_castsi512_ps(turned), _mm512_setzero_ps(), _CMP_NLE_UQ);
  }
  // Halves of a vector in float64.
  using Wide = __m512d;
  static constexpr int kWide = 8;
  // Sixteen float64 rounded.
  static Real narrow(const double* in) {
    const __m256 low = _mm512_cvtpd_ps(_mm512_loadu_pd(in));
    return _mm512_insertf32x8(_mm512_castps256_ps512(low),
                              _mm512_cvtpd_ps(_mm512_loadu_pd(in + kWide)), 1);
  }
  static Wide widen_low(Real x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
  static Wide widen_high(Real x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }
  // |x| 2^-896 of the even and of the odd lanes, if finite: a float64 of that value has the bits of
  // the float32, shifted, denormals too. Two shifts are cheaper than a conversion.
  static Wide scaled_even(Real x) {
    const __m512i bits = _mm512_slli_epi64(_mm512_castps_si512(x), 33);
    return _mm512_castsi512_pd(_mm512_srli_epi64(bits, 4));
  }
  static Wide scaled_odd(Real x) {
    const __m512i magnitude = _mm512_set1_epi64(0x7fffffff00000000);
    const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x), magnitude);
    return _mm512_castsi512_pd(_mm512_srli_epi64(bits, 3));
  }
  static Wide add(Wide a, Wide b) { return _mm512_add_pd(a, b); }
  // a b + c for a and b that were float32: their product is exact, so this rounds like an addition.
  static Wide add_product(Wide a, Wide b, Wide c) { return _mm512_fmadd_pd(a, b, c); }
  static Wide load(const double* in) { return _mm512_loadu_pd(in); }
  static void store(double* out, Wide x) { _mm512_storeu_pd(out, x); }

  static Key no_bits() { return _mm512_setzero_si512(); }
  static Key set_bit(Key bits, Mask mask, int bit) {
    return _mm512_mask_or_epi32(bits, mask, bits, _mm512_set1_epi32(1 << bit));
  }
  static Real look_up(const float* table, Key index) {
    return _mm512_permutexvar_ps(index, _mm512_loadu_ps(table));
  }
};

}  // namespace v4
}  // namespace
}  // namespace pymerge
