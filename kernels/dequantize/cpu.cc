// dequantize on the CPU: arithmetic on bits, which compilers turn into vectors at every level.
#include "dequantize/dequantize.h"
#include "dequantize/floats.h"
#include "dequantize/packed.h"

namespace pymerge {
namespace {

template <typename Float>
void scale_row(const std::uint8_t* codes, std::int64_t column, std::int64_t n, const float* scales,
               std::int64_t width, float* out) {
  const std::int64_t end = column + n;
  for (std::int64_t at = column; at < end;) {
    const std::int64_t block = at / width;
    const std::int64_t edge = (block + 1) * width;
    const std::int64_t size = (edge < end ? edge : end) - at;
    const float scale = scales[block];
    const std::uint8_t* __restrict in = codes + (at - column);
    float* __restrict to = out + (at - column);
    for (std::int64_t i = 0; i < size; ++i) to[i] = Float::decode(in[i]) * scale;
    at += size;
  }
}

inline float scaled(std::uint32_t code, std::uint8_t scale) {
  return E2M1::decode(code) * decode_e8m0(scale);
}

void scale_each(const std::uint8_t* codes, std::int64_t begin, std::int64_t n,
                const std::uint8_t* scales, float* out) {
  const std::int64_t end = begin + n;
  std::int64_t at = begin;
  float* __restrict to = out - begin;
  if (at < end && at % 2 != 0) {
    to[at] = scaled(codes[at / 2] >> 4, scales[at]);
    ++at;
  }
  const std::uint8_t* __restrict in = codes + at / 2;
  const std::uint8_t* __restrict power = scales + at;
  float* __restrict even = to + at;
  const std::int64_t pairs = (end - at) / 2;
  for (std::int64_t i = 0; i < pairs; ++i) {
    even[2 * i] = scaled(in[i] & 15u, power[2 * i]);
    even[2 * i + 1] = scaled(in[i] >> 4, power[2 * i + 1]);
  }
  if ((end - at) % 2 != 0) to[end - 1] = scaled(in[pairs] & 15u, scales[end - 1]);
}

}  // namespace

PYMERGE_EXPORT(DequantizeKernel, dequantize) = {
    {scale_row<E4M3>, scale_row<E5M2>},
    scale_each,
    {
        unpack_all<Packed::kF32LessOne, unpack_less_one>,
        unpack_all<Packed::kQ8_0, unpack_q8_0>,
        unpack_all<Packed::kQ4_0, unpack_nibbles<false, false>>,
        unpack_all<Packed::kQ4_1, unpack_nibbles<true, false>>,
        unpack_all<Packed::kQ5_0, unpack_nibbles<false, true>>,
        unpack_all<Packed::kQ5_1, unpack_nibbles<true, true>>,
        unpack_all<Packed::kQ2K, unpack_q2_k>,
        unpack_all<Packed::kQ3K, unpack_q3_k>,
        unpack_all<Packed::kQ4K, unpack_q45_k<false>>,
        unpack_all<Packed::kQ5K, unpack_q45_k<true>>,
        unpack_all<Packed::kQ6K, unpack_q6_k>,
    },
};

}  // namespace pymerge
