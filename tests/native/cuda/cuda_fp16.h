// The conversions of the toolkit's header of this name, emulated by the CPU kernels' own.
#pragma once

#include "common/simd_plain.h"
#include "cuda_runtime.h"

struct __half {
  std::uint16_t bits;
};
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half half) { return half.bits; }
inline float __half2float(__half half) {
  float value;
  pymerge::plain::decode_f16(&half.bits, 1, &value);
  return value;
}
inline __half __float2half_rn(float value) {
  __half half;
  pymerge::plain::encode_f16(&value, 1, &half.bits);
  return half;
}
