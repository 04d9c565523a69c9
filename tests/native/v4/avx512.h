// The AVX-512 instructions of kernels/common/simd_v4.h as loops over lanes, by their definitions in
// Intel's guide to intrinsics, so that a machine without them runs that file's code. Included
// before anything else of a kernel; from then on the intrinsics' names are these functions'.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace loops {

using Bits = __m512i;
using Floats = __m512;
using Doubles = __m512d;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

// The lanes of a vector, to read and to make.
template <typename Lane, typename Vector>
struct Lanes {
  static constexpr int kCount = sizeof(Vector) / sizeof(Lane);
  Lanes() = default;
  explicit Lanes(const Vector& vector) { std::memcpy(lane, &vector, sizeof vector); }
  Vector whole() const {
    Vector vector;
    std::memcpy(&vector, lane, sizeof vector);
    return vector;
  }
  Lane lane[kCount];
};

// Lane i of the result is of(lane i of each vector).
template <typename Lane, typename To, typename Of, typename... From>
To each(const Of& of, const From&... from) {
  using Made = Lanes<Lane, To>;
  Made made;
  for (int i = 0; i < Made::kCount; ++i) {
    made.lane[i] = static_cast<Lane>(of(Lanes<Lane, From>(from).lane[i]...));
  }
  return made.whole();
}
// Lane i of the result is of(i).
template <typename Lane, typename To, typename Of>
To fill(const Of& of) {
  using Made = Lanes<Lane, To>;
  Made made;
  for (int i = 0; i < Made::kCount; ++i) made.lane[i] = static_cast<Lane>(of(i));
  return made.whole();
}
// Bit i of the result is of(lane i of both vectors).
template <typename Lane, typename Mask, typename Vector, typename Of>
Mask test(const Of& of, const Vector& a, const Vector& b) {
  const Lanes<Lane, Vector> left(a), right(b);
  Mask mask = 0;
  for (int i = 0; i < Lanes<Lane, Vector>::kCount; ++i) {
    if (of(left.lane[i], right.lane[i])) mask |= static_cast<Mask>(Mask{1} << i);
  }
  return mask;
}
// Lane i is b's under the mask, else a's.
template <typename Lane, typename Vector, typename Mask>
Vector blend(Mask mask, const Vector& a, const Vector& b) {
  const Lanes<Lane, Vector> left(a), right(b);
  return fill<Lane, Vector>([&](int i) { return (mask >> i & 1 ? right : left).lane[i]; });
}
template <typename Vector>
Vector load(const void* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}
template <typename Vector>
void store(void* to, const Vector& vector) {
  std::memcpy(to, &vector, sizeof vector);
}
// The first bytes of one as another; what there are not are zero.
template <typename To, typename From>
To cast(const From& from) {
  To to{};
  std::memcpy(&to, &from, sizeof to < sizeof from ? sizeof to : sizeof from);
  return to;
}
template <typename Half, typename Whole>
Half half(const Whole& whole, int which) {
  Half halves[2];
  std::memcpy(halves, &whole, sizeof whole);
  return halves[which];
}
template <typename Whole, typename Half>
Whole with_half(const Whole& whole, const Half& half, int which) {
  Half halves[2];
  std::memcpy(halves, &whole, sizeof whole);
  halves[which] = half;
  return load<Whole>(halves);
}
template <typename Lane, typename... Lane_>
Bits listed(Lane_... lanes) {
  const Lane all[] = {static_cast<Lane>(lanes)...};
  return load<Bits>(all);
}
template <typename... Lane>
Bits listed_back(Lane... lanes) {
  const short all[] = {static_cast<short>(lanes)...};
  return fill<short, Bits>([&](int i) { return all[31 - i]; });
}

inline Bits shift_right_32(Bits a, unsigned n) {
  return each<u32, Bits>([=](u32 x) { return n < 32 ? x >> n : 0; }, a);
}
inline Bits shift_right_64(Bits a, unsigned n) {
  return each<u64, Bits>([=](u64 x) { return n < 64 ? x >> n : 0; }, a);
}
inline Bits shift_left_32(Bits a, unsigned n) {
  return each<u32, Bits>([=](u32 x) { return n < 32 ? x << n : 0; }, a);
}
inline Bits shift_left_64(Bits a, unsigned n) {
  return each<u64, Bits>([=](u64 x) { return n < 64 ? x << n : 0; }, a);
}
inline Bits ternary(Bits a, Bits b, Bits c, int table) {
  const auto bits = [=](u64 x, u64 y, u64 z) {
    u64 made = 0;
    for (int i = 0; i < 64; ++i) {
      const auto row = (x >> i & 1) << 2 | (y >> i & 1) << 1 | (z >> i & 1);
      made |= static_cast<u64>(table >> row & 1) << i;
    }
    return made;
  };
  return each<u64, Bits>(bits, a, b, c);
}
inline Bits permute_two(Bits a, Bits index, Bits b) {
  const Lanes<u16, Bits> first(a), second(b);
  return each<u16, Bits>([&](u16 i) { return (i & 32 ? second : first).lane[i & 31]; }, index);
}
inline Floats permute(Bits index, Floats a) {
  const Lanes<u32, Bits> from(index);
  const Lanes<float, Floats> lanes(a);
  return fill<float, Floats>([&](int i) { return lanes.lane[from.lane[i] & 15]; });
}
inline Bits compress(__mmask16 mask, Bits a) {
  const Lanes<u32, Bits> from(a);
  Lanes<u32, Bits> to(Bits{});
  int n = 0;
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) to.lane[n++] = from.lane[i];
  }
  return to.whole();
}
inline int sum(Bits a) {
  u32 total = 0;
  for (const u32 lane : Lanes<u32, Bits>(a).lane) total += lane;
  return static_cast<int>(total);
}
template <int how>
__mmask16 compare(Floats a, Floats b) {
  static_assert(how == _CMP_UNORD_Q || how == _CMP_GE_OQ || how == _CMP_NLE_UQ);
  const auto holds = [](float x, float y) {
    if (how == _CMP_GE_OQ) return x >= y;
    return how == _CMP_NLE_UQ ? !(x <= y) : x != x || y != y;
  };
  return test<float, __mmask16>(holds, a, b);
}
// Lanes of one size from those of another.
template <typename To, typename From, typename Vector, typename Source>
Vector convert(const Source& source) {
  const Lanes<From, Source> from(source);
  return fill<To, Vector>([&](int i) { return from.lane[i]; });
}
inline Floats widen_halves(__m256i a) {
  const __m256 low = _mm256_cvtph_ps(half<__m128i>(a, 0));
  return with_half(with_half(Floats{}, low, 0), _mm256_cvtph_ps(half<__m128i>(a, 1)), 1);
}
inline __m256i narrow_to_halves(Floats a) {
  const __m128i low = _mm256_cvtps_ph(half<__m256>(a, 0), _MM_FROUND_TO_NEAREST_INT);
  const __m128i high = _mm256_cvtps_ph(half<__m256>(a, 1), _MM_FROUND_TO_NEAREST_INT);
  return with_half(with_half(__m256i{}, low, 0), high, 1);
}

#define PYMERGE_EACH(name, Lane, Vector, formula)                            \
  inline Vector name(Vector a, Vector b) {                                   \
    return each<Lane, Vector>([](Lane x, Lane y) { return formula; }, a, b); \
  }
#define PYMERGE_TEST(name, Lane, Mask, formula)                            \
  inline Mask name(Bits a, Bits b) {                                       \
    return test<Lane, Mask>([](Lane x, Lane y) { return formula; }, a, b); \
  }
PYMERGE_EACH(and_64, u64, Bits, x& y)
PYMERGE_EACH(or_32, u32, Bits, x | y)
PYMERGE_EACH(xor_32, u32, Bits, x ^ y)
PYMERGE_EACH(add_64, u64, Bits, x + y)
PYMERGE_EACH(add_32, u32, Bits, x + y)
PYMERGE_EACH(subtract_32, u32, Bits, x - y)
PYMERGE_EACH(most_32, u32, Bits, x > y ? x : y)
PYMERGE_EACH(least_32, u32, Bits, x < y ? x : y)
PYMERGE_EACH(multiply_wide, u64, Bits, (x & 0xffffffffu) * (y & 0xffffffffu))
PYMERGE_EACH(add_floats, float, Floats, x + y)
PYMERGE_EACH(subtract_floats, float, Floats, x - y)
PYMERGE_EACH(multiply_floats, float, Floats, x* y)
PYMERGE_EACH(add_doubles, double, Doubles, x + y)
PYMERGE_TEST(above_32, std::int32_t, __mmask16, x > y)
PYMERGE_TEST(below_32, std::int32_t, __mmask16, x < y)
PYMERGE_TEST(not_below_32, std::int32_t, __mmask16, x >= y)
PYMERGE_TEST(equal_32, std::int32_t, __mmask16, x == y)
PYMERGE_TEST(not_above_u32, u32, __mmask16, x <= y)
PYMERGE_TEST(not_above_u16, u16, __mmask32, x <= y)
PYMERGE_TEST(common_bits_16, u16, __mmask32, (x & y) != 0)
#undef PYMERGE_EACH
#undef PYMERGE_TEST
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
  return each<double, Doubles>([](double x, double y, double z) { return __builtin_fma(x, y, z); },
                               a, b, c);
}

}  // namespace loops

#undef _mm512_setr_epi64  // of the compiler, a macro
#define _mm512_set1_epi16(x) loops::fill<short, __m512i>([&](int) { return x; })
#define _mm512_set1_epi32(x) loops::fill<int, __m512i>([&](int) { return x; })
#define _mm512_set1_epi64(x) loops::fill<std::uint64_t, __m512i>([&](int) { return x; })
#define _mm512_set1_ps(x) loops::fill<float, __m512>([&](int) { return x; })
#define _mm512_setzero_si512() (__m512i{})
#define _mm512_setzero_ps() (__m512{})
#define _mm512_setr_epi64 loops::listed<std::uint64_t>
#define _mm512_set_epi16 loops::listed_back
#define _mm512_load_si512 loops::load<__m512i>
#define _mm512_loadu_si512 loops::load<__m512i>
#define _mm512_loadu_ps loops::load<__m512>
#define _mm512_loadu_pd loops::load<__m512d>
#define _mm512_storeu_si512 loops::store<__m512i>
#define _mm512_storeu_ps loops::store<__m512>
#define _mm512_storeu_pd loops::store<__m512d>
#define _mm512_castps_si512 loops::cast<__m512i>
#define _mm512_castsi512_ps loops::cast<__m512>
#define _mm512_castsi512_pd loops::cast<__m512d>
#define _mm512_castsi512_si256 loops::cast<__m256i>
#define _mm512_castps512_ps256 loops::cast<__m256>
#define _mm512_castps256_ps512 loops::cast<__m512>
#define _mm512_and_si512 loops::and_64
#define _mm512_srli_epi32 loops::shift_right_32
#define _mm512_srli_epi64 loops::shift_right_64
#define _mm512_slli_epi32 loops::shift_left_32
#define _mm512_slli_epi64 loops::shift_left_64
#define _mm512_add_epi32 loops::add_32
#define _mm512_add_epi64 loops::add_64
#define _mm512_sub_epi32 loops::subtract_32
#define _mm512_max_epu32 loops::most_32
#define _mm512_min_epu32 loops::least_32
#define _mm512_mul_epu32 loops::multiply_wide
#define _mm512_ternarylogic_epi64 loops::ternary
#define _mm512_permutex2var_epi16 loops::permute_two
#define _mm512_permutexvar_ps loops::permute
#define _mm512_reduce_add_epi32 loops::sum
#define _mm512_maskz_compress_epi32 loops::compress
#define _mm512_mask_mov_epi16(a, mask, b) loops::blend<std::uint16_t>(mask, a, b)
#define _mm512_mask_mov_epi32(a, mask, b) loops::blend<std::uint32_t>(mask, a, b)
#define _mm512_mask_blend_ps loops::blend<std::uint32_t>
#define _mm512_maskz_mov_ps(mask, a) loops::blend<std::uint32_t>(mask, __m512{}, a)
#define _mm512_maskz_mul_ps(mask, a, b) _mm512_maskz_mov_ps(mask, loops::multiply_floats(a, b))
#define _mm512_mask_add_ps(from, mask, a, b) \
  loops::blend<std::uint32_t>(mask, from, loops::add_floats(a, b))
#define _mm512_mask_add_epi32(from, mask, a, b) \
  _mm512_mask_mov_epi32(from, mask, loops::add_32(a, b))
#define _mm512_mask_xor_epi32(from, mask, a, b) \
  _mm512_mask_mov_epi32(from, mask, loops::xor_32(a, b))
#define _mm512_mask_or_epi32(from, mask, a, b) _mm512_mask_mov_epi32(from, mask, loops::or_32(a, b))
#define _mm512_add_ps loops::add_floats
#define _mm512_sub_ps loops::subtract_floats
#define _mm512_mul_ps loops::multiply_floats
#define _mm512_add_pd loops::add_doubles
#define _mm512_fmadd_pd loops::multiply_add
#define _mm512_cmpgt_epi32_mask loops::above_32
#define _mm512_cmplt_epi32_mask loops::below_32
#define _mm512_cmpge_epi32_mask loops::not_below_32
#define _mm512_cmpeq_epi32_mask loops::equal_32
#define _mm512_cmple_epu32_mask loops::not_above_u32
#define _mm512_cmple_epu16_mask loops::not_above_u16
#define _mm512_test_epi16_mask loops::common_bits_16
#define _mm512_mask_cmplt_epi32_mask(mask, a, b) \
  static_cast<__mmask16>((mask) & loops::below_32(a, b))
#define _mm512_movm_epi16(mask) \
  loops::blend<std::uint16_t>(mask, __m512i{}, _mm512_set1_epi16(static_cast<short>(-1)))
#define _mm512_cvtepu8_epi16 loops::convert<std::uint16_t, std::uint8_t, __m512i>
#define _mm512_cvtepu16_epi32 loops::convert<std::uint32_t, std::uint16_t, __m512i>
#define _mm512_cvtepi32_epi16 loops::convert<std::uint16_t, std::uint32_t, __m256i>
#define _mm512_cvtps_pd loops::convert<double, float, __m512d>
#define _mm512_cvtpd_ps loops::convert<float, double, __m256>
#define _mm512_cvtph_ps loops::widen_halves
// Without optimization, the compiler's are macros.
#undef _mm512_cmp_ps_mask
#undef _mm512_cvtps_ph
#undef _mm512_extracti64x4_epi64
#undef _mm512_extractf32x8_ps
#undef _mm512_insertf32x8
#define _mm512_cmp_ps_mask(a, b, how) loops::compare<how>(a, b)
#define _mm512_cvtps_ph(a, nearest) loops::narrow_to_halves(a)
#define _mm512_extracti64x4_epi64 loops::half<__m256i>
#define _mm512_extractf32x8_ps loops::half<__m256>
#define _mm512_insertf32x8 loops::with_half

// The compiler's own header has to be read without these.
#define __AVX512F__ 1
#define __AVX512VL__ 1
