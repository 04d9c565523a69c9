// x86-64-v3 (AVX2, F16C) versions of simd_plain.h.
#pragma once

#include <immintrin.h>

#include "common/simd_plain.h"

namespace pymerge {
namespace {
namespace v3 {

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

// A group of eight without a hit (most are) costs one test.
inline int append_in_range(const std::uint32_t* keys, int n, std::uint32_t low, std::uint32_t width,
                           std::uint32_t* out) {
  const __m256i lows = _mm256_set1_epi32(static_cast<int>(low));
  const __m256i widths = _mm256_set1_epi32(static_cast<int>(width));
  int count = 0;
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256i key = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + i));
    const __m256i shifted = _mm256_sub_epi32(key, lows);
    const __m256i inside = _mm256_cmpeq_epi32(_mm256_min_epu32(shifted, widths), shifted);
    auto hits = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(inside)));
    for (; hits != 0; hits &= hits - 1) out[count++] = keys[i + __builtin_ctz(hits)];
  }
  return count + plain::append_in_range(keys + i, n - i, low, width, out + count);
}

inline int append_in_range(const std::uint64_t* keys, int n, std::uint64_t low, std::uint64_t width,
                           std::uint64_t* out) {
  return plain::append_in_range(keys, n, low, width, out);
}

}  // namespace v3
}  // namespace
}  // namespace pymerge
