// Exact decoding to the compute type, one rounding back: convert.py's contract, on the device.
// Eight elements at a time, or one.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "core/operand.h"

namespace pymerge::cuda {

// Elements that a thread works on at a time: 16 bytes of a 2-byte type.
inline constexpr int kVector = 8;

// A tensor, as device code needs it.
struct Source {
  const void* data;
  DType dtype;
};

// Inputs are read once, outputs written once: neither is to push anything else out of the caches.
template <typename T>
__device__ __forceinline__ T load_once(const void* data, std::int64_t at) {
  return __ldcs(static_cast<const T*>(data) + at);
}
template <typename T>
__device__ __forceinline__ void store_once(void* data, std::int64_t at, T value) {
  __stcs(static_cast<T*>(data) + at, value);
}

__device__ __forceinline__ float decode_bf16(std::uint32_t word) {
  return __uint_as_float(word << 16);
}
__device__ __forceinline__ float decode_f16(std::uint32_t word) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(word)));
}

// A vector of a 2-byte type, two elements to a word.
template <DType dtype>
__device__ __forceinline__ void decode_halves(const uint4& raw, float (&out)[kVector]) {
  const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (dtype == DType::kBF16) {
      out[2 * i] = decode_bf16(words[i]);
      out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    } else {
      out[2 * i] = decode_f16(words[i] & 0xffffu);
      out[2 * i + 1] = decode_f16(words[i] >> 16);
    }
  }
}
__device__ __forceinline__ void decode_floats(const uint4& raw, float* out) {
  out[0] = __uint_as_float(raw.x);
  out[1] = __uint_as_float(raw.y);
  out[2] = __uint_as_float(raw.z);
  out[3] = __uint_as_float(raw.w);
}

// Formats: what kernels are compiled for. A format's Raw<n> is what n elements (one or a vector)
// are before they are decoded, so that many can be loaded before one is used.

// All inputs of one dtype: bfloat16, float16 or float32.
template <DType dtype>
struct Same {
  using Real = float;
  static constexpr bool kWide = dtype == DType::kF32;
  static constexpr int kWords = kWide ? 2 : 1;

  template <int n>
  struct Raw {
    uint4 words[kWords];
  };

  // `at`: of a vector a multiple of its length, in a tensor that starts at a multiple of 16 bytes.
  template <int n>
  static __device__ __forceinline__ Raw<n> load(const Source& source, std::int64_t at) {
    Raw<n> raw{};
    if constexpr (n == kVector) {
#pragma unroll
      for (int i = 0; i < kWords; ++i) {
        raw.words[i] = load_once<uint4>(source.data, at / kVector * kWords + i);
      }
    } else if constexpr (kWide) {
      raw.words[0].x = load_once<std::uint32_t>(source.data, at);
    } else {
      raw.words[0].x = load_once<std::uint16_t>(source.data, at);
    }
    return raw;
  }

  template <int n>
  static __device__ __forceinline__ void decode(const Raw<n>& raw, float (&out)[n]) {
    if constexpr (n == 1) {
      const std::uint32_t word = raw.words[0].x;
      out[0] = dtype == DType::kBF16  ? decode_bf16(word)
               : dtype == DType::kF16 ? decode_f16(word)
                                      : __uint_as_float(word);
    } else if constexpr (kWide) {
      decode_floats(raw.words[0], out);
      decode_floats(raw.words[1], out + 4);
    } else {
      decode_halves<dtype>(raw.words[0], out);
    }
  }
};

// Inputs of any mergeable dtypes, computed in float32 or float64; decoded as they are loaded.
template <typename T>
struct Mixed {
  using Real = T;
  template <int n>
  struct Raw {
    Real values[n];
  };

  template <int n>
  static __device__ __forceinline__ Raw<n> load(const Source& source, std::int64_t at) {
    Raw<n> raw;
    switch (source.dtype) {
      case DType::kBF16:
        widen<Same<DType::kBF16>>(source, at, raw.values);
        break;
      case DType::kF16:
        widen<Same<DType::kF16>>(source, at, raw.values);
        break;
      case DType::kF32:
        widen<Same<DType::kF32>>(source, at, raw.values);
        break;
      default:
        load_doubles(source, at, raw.values);
        break;
    }
    return raw;
  }

  template <int n>
  static __device__ __forceinline__ void decode(const Raw<n>& raw, Real (&out)[n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) out[i] = raw.values[i];
  }

 private:
  template <typename Format, int n>
  static __device__ __forceinline__ void widen(const Source& source, std::int64_t at,
                                               Real (&out)[n]) {
    float values[n];
    Format::template decode<n>(Format::template load<n>(source, at), values);
#pragma unroll
    for (int i = 0; i < n; ++i) out[i] = values[i];
  }
  template <int n>
  static __device__ __forceinline__ void load_doubles(const Source& source, std::int64_t at,
                                                      Real (&out)[n]) {
    if constexpr (n == 1) {
      const auto bits = load_once<unsigned long long>(source.data, at);
      out[0] = static_cast<Real>(__longlong_as_double(static_cast<long long>(bits)));
    } else {
#pragma unroll
      for (int i = 0; i < n / 2; ++i) {
        const auto pair = load_once<ulonglong2>(source.data, at / 2 + i);
        out[2 * i] = static_cast<Real>(__longlong_as_double(static_cast<long long>(pair.x)));
        out[2 * i + 1] = static_cast<Real>(__longlong_as_double(static_cast<long long>(pair.y)));
      }
    }
  }
};

// float64 to float32 such that rounding again, to 16 bits, rounds only once (convert.py).
__device__ __forceinline__ float narrow_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  const double back = static_cast<double>(nearest);
  if (value != value) return nearest;
  std::uint32_t bits = __float_as_uint(nearest);
  const bool inexact = back != value;
  bits -= inexact && (back > value) == (value > 0) ? 1u : 0u;
  return __uint_as_float(bits | (inexact ? 1u : 0u));
}
__device__ __forceinline__ float narrow_to_odd(float value) { return value; }

// Rounded once, to nearest even; every NaN becomes the canonical one.
__device__ __forceinline__ std::uint32_t encode_bf16(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return value != value ? 0x7fc0u : rounded;
}
// Two at a time, the first in the lower half; devices have one instruction for that.
__device__ __forceinline__ std::uint32_t encode_bf16_pair(float low, float high) {
#ifdef __CUDA_ARCH__
  std::uint32_t words;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words) : "f"(high), "f"(low));
  // Of a NaN it makes 0x7fff, which alone is above the canonical one.
  return __vmins2(words, 0x7fc07fc0u);
#else
  return encode_bf16(low) | encode_bf16(high) << 16;
#endif
}
__device__ __forceinline__ std::uint32_t encode_f16(float value) {
  return value != value ? 0x7e00u : __half_as_ushort(__float2half_rn(value));
}
template <typename Real>
__device__ __forceinline__ std::uint32_t encode_f32(Real value) {
  return value != value ? 0x7fc00000u : __float_as_uint(static_cast<float>(value));
}
__device__ __forceinline__ unsigned long long encode_f64(double value) {
  return value != value ? 0x7ff8000000000000ull
                        : static_cast<unsigned long long>(__double_as_longlong(value));
}

template <typename Real>
__device__ __forceinline__ void store_elements(void* out, DType dtype, std::int64_t at,
                                               const Real (&values)[1]) {
  if (dtype == DType::kBF16) {
    store_once(out, at, static_cast<std::uint16_t>(encode_bf16(narrow_to_odd(values[0]))));
  } else if (dtype == DType::kF16) {
    store_once(out, at, static_cast<std::uint16_t>(encode_f16(narrow_to_odd(values[0]))));
  } else if (dtype == DType::kF32) {
    store_once(out, at, encode_f32(values[0]));
  } else {
    store_once(out, at, encode_f64(values[0]));
  }
}

// A vector at a multiple of its length, of an output that starts at a multiple of 16 bytes.
template <typename Real>
__device__ __forceinline__ void store_elements(void* out, DType dtype, std::int64_t at,
                                               const Real (&values)[kVector]) {
  std::uint32_t words[kVector];
  if (dtype == DType::kBF16) {
#pragma unroll
    for (int i = 0; i < kVector / 2; ++i) {
      words[i] = encode_bf16_pair(narrow_to_odd(values[2 * i]), narrow_to_odd(values[2 * i + 1]));
    }
    store_once(out, at / kVector, uint4{words[0], words[1], words[2], words[3]});
  } else if (dtype == DType::kF16) {
#pragma unroll
    for (int i = 0; i < kVector / 2; ++i) {
      words[i] = encode_f16(narrow_to_odd(values[2 * i])) |
                 encode_f16(narrow_to_odd(values[2 * i + 1])) << 16;
    }
    store_once(out, at / kVector, uint4{words[0], words[1], words[2], words[3]});
  } else if (dtype == DType::kF32) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) words[i] = encode_f32(values[i]);
    store_once(out, at / 4, uint4{words[0], words[1], words[2], words[3]});
    store_once(out, at / 4 + 1, uint4{words[4], words[5], words[6], words[7]});
  } else {
#pragma unroll
    for (int i = 0; i < kVector; i += 2) {
      store_once(out, (at + i) / 2, ulonglong2{encode_f64(values[i]), encode_f64(values[i + 1])});
    }
  }
}

// The bit pattern of a magnitude; every NaN is the canonical one, the largest.
__device__ __forceinline__ std::uint32_t key_of(float value) {
  return value != value ? 0x7fc00000u : __float_as_uint(value) & 0x7fffffffu;
}
__device__ __forceinline__ std::uint64_t key_of(double value) {
  const auto bits = static_cast<std::uint64_t>(__double_as_longlong(value));
  return value != value ? 0x7ff8000000000000u : bits & 0x7fffffffffffffffu;
}

}  // namespace pymerge::cuda
