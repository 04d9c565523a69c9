// x86-64-v4 (AVX-512) versions of simd_plain.h.
#pragma once

#include <immintrin.h>

#include "common/simd_plain.h"

namespace pymerge {
namespace {
namespace v4 {

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

// Compress in a register, store whole: a compressing store is microcoded on Zen 4.
inline int append_in_range(const std::uint32_t* keys, int n, std::uint32_t low, std::uint32_t width,
                           std::uint32_t* out) {
  const __m512i lows = _mm512_set1_epi32(static_cast<int>(low));
  const __m512i widths = _mm512_set1_epi32(static_cast<int>(width));
  int count = 0;
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512i key = _mm512_loadu_si512(keys + i);
    const __mmask16 inside = _mm512_cmple_epu32_mask(_mm512_sub_epi32(key, lows), widths);
    _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32(inside, key));
    count += __builtin_popcount(inside);
  }
  return count + plain::append_in_range(keys + i, n - i, low, width, out + count);
}

inline int append_in_range(const std::uint64_t* keys, int n, std::uint64_t low, std::uint64_t width,
                           std::uint64_t* out) {
  return plain::append_in_range(keys, n, low, width, out);
}

}  // namespace v4
}  // namespace
}  // namespace pymerge
