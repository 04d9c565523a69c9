// Blocks that hold their scales, as GGUF files have them: codes first as bytes, then times their
// group's scale, less its offset. Contract: packed.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/simd.h"
#include "dequantize/dequantize.h"

namespace pymerge {
namespace {

using Byte = std::uint8_t;

inline float half_at(const Byte* at) {
  plain::Half half;
  std::memcpy(&half, at, sizeof half);
  float value;
  plain::decode_f16(&half, 1, &value);
  return value;
}

// What a block is before its last step; `offsets` is used where `has_offsets`.
template <int elements, int groups>
struct Block {
  std::int8_t codes[elements];
  float scales[groups];
  float offsets[groups];
};

template <bool has_offsets, int elements, int groups>
inline void finish(const Block<elements, groups>& block, float* out) {
  constexpr int kGroup = elements / groups;
  // A scale for each element: one long loop becomes vectors, many short ones do not.
  float scales[elements];
  float offsets[elements];
  for (int g = 0; g < groups; ++g) {
    for (int i = 0; i < kGroup; ++i) {
      scales[g * kGroup + i] = block.scales[g];
      if (has_offsets) offsets[g * kGroup + i] = block.offsets[g];
    }
  }
  for (int i = 0; i < elements; ++i) {
    const float product = scales[i] * static_cast<float>(block.codes[i]);
    out[i] = has_offsets ? product - offsets[i] : product;
  }
}

inline void unpack_q8_0(const Byte* in, float* out) {
  const float scale = half_at(in);
  for (int i = 0; i < 32; ++i)
    out[i] = scale * static_cast<float>(static_cast<std::int8_t>(in[2 + i]));
}

// Q4_0, Q4_1, Q5_0, Q5_1: the low nibbles are the first half of the block. `high`: a fifth bit.
template <bool with_offset, bool high>
inline void unpack_nibbles(const Byte* in, float* out) {
  const float scale = half_at(in);
  const float offset = with_offset ? half_at(in + 2) : 0.0f;
  const Byte* const bits = in + (with_offset ? 4 : 2);
  const Byte* const codes = bits + (high ? 4 : 0);
  std::uint32_t fifth = 0;
  if (high) std::memcpy(&fifth, bits, sizeof fifth);
  constexpr int kZero = with_offset ? 0 : high ? 16 : 8;
  for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 1  // taken apart, it becomes vectors of a few elements only
    for (int i = 0; i < 16; ++i) {
      const int low = codes[i] >> 4 * half & 15;
      const auto top = static_cast<int>((fifth >> (16 * half + i) & 1u) << 4);
      const float product = scale * static_cast<float>((low | top) - kZero);
      out[16 * half + i] = with_offset ? product + offset : product;
    }
  }
}

inline void unpack_q2_k(const Byte* in, float* out) {
  Block<256, 16> block;
  const float d = half_at(in + 80);
  const float least = half_at(in + 82);
  for (int g = 0; g < 16; ++g) {
    block.scales[g] = d * static_cast<float>(in[g] & 15);
    block.offsets[g] = least * static_cast<float>(in[g] >> 4);
  }
  const Byte* const codes = in + 16;
  for (int part = 0; part < 8; ++part) {
    for (int i = 0; i < 32; ++i) {
      block.codes[32 * part + i] =
          static_cast<std::int8_t>(codes[part / 4 * 32 + i] >> (part % 4 * 2) & 3);
    }
  }
  finish<true>(block, out);
}

inline void unpack_q3_k(const Byte* in, float* out) {
  Block<256, 16> block;
  const Byte* const codes = in + 32;
  const Byte* const scales = in + 96;
  const float d = half_at(in + 108);
  for (int g = 0; g < 16; ++g) {
    const int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
    const int high = scales[8 + g % 4] >> (g / 4 * 2) & 3;
    block.scales[g] = d * static_cast<float>((low | high << 4) - 32);
  }
  for (int part = 0; part < 8; ++part) {
    for (int i = 0; i < 32; ++i) {
      const int low = codes[part / 4 * 32 + i] >> (part % 4 * 2) & 3;
      const int high = in[i] >> part & 1;
      block.codes[32 * part + i] = static_cast<std::int8_t>(low + 4 * high - 4);
    }
  }
  finish<false>(block, out);
}

// Q4_K, and with `high` Q5_K.
template <bool high>
inline void unpack_q45_k(const Byte* in, float* out) {
  Block<256, 8> block;
  const float d = half_at(in);
  const float least = half_at(in + 2);
  const Byte* const s = in + 4;
  for (int g = 0; g < 8; ++g) {
    const int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
    const int offset = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
    block.scales[g] = d * static_cast<float>(scale);
    block.offsets[g] = least * static_cast<float>(offset);
  }
  const Byte* const bits = in + 16;
  const Byte* const codes = bits + (high ? 32 : 0);
  for (int g = 0; g < 8; ++g) {
    for (int i = 0; i < 32; ++i) {
      const int low = codes[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
      const int top = high ? (bits[i] >> g & 1) << 4 : 0;
      block.codes[32 * g + i] = static_cast<std::int8_t>(low | top);
    }
  }
  finish<true>(block, out);
}

inline void unpack_q6_k(const Byte* in, float* out) {
  Block<256, 16> block;
  const Byte* const high = in + 128;
  const float d = half_at(in + 208);
  for (int g = 0; g < 16; ++g) {
    block.scales[g] = d * static_cast<float>(static_cast<std::int8_t>(in[192 + g]));
  }
  for (int part = 0; part < 8; ++part) {
    const Byte* const low = in + part / 4 * 64 + part % 2 * 32;
    const Byte* const top = high + part / 4 * 32;
    for (int i = 0; i < 32; ++i) {
      const int code = (low[i] >> (part % 4 / 2 * 4) & 15) | (top[i] >> (part % 4 * 2) & 3) << 4;
      block.codes[32 * part + i] = static_cast<std::int8_t>(code - 32);
    }
  }
  finish<false>(block, out);
}

inline void unpack_less_one(const Byte* in, float* out) {
  float value;
  std::memcpy(&value, in, sizeof value);
  *out = value - 1.0f;
}

template <Packed format, void (*unpack)(const Byte*, float*)>
void unpack_all(const std::byte* blocks, std::int64_t n, float* out) {
  constexpr PackedFormat kFormat = kPackedFormats[static_cast<int>(format)];
  const auto* in = reinterpret_cast<const Byte*>(blocks);
  for (std::int64_t i = 0; i < n; ++i) unpack(in + i * kFormat.bytes, out + i * kFormat.elements);
}

}  // namespace
}  // namespace pymerge
