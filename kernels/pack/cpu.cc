// pack on the CPU: plain loops, which compilers turn into vectors at every level.
#include <cstring>

#include "common/chunk.h"
#include "pack/pack.h"

namespace pymerge {
namespace {

constexpr int kElements = 32;

std::int64_t count_bad(const float* in, std::int64_t n, DType dtype) {
  std::int64_t total = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    double room;
    total += encode(in + i, 1, dtype, &room) ? 1 : 0;
  }
  return total;
}

template <DType dtype, bool one>
std::int64_t pack_floats(const float* in, std::int64_t n, std::byte* out) {
  std::int64_t bad = 0;
  alignas(64) float more[kBlock];
  for (std::int64_t at = 0; at < n; at += kBlock) {
    const auto size = static_cast<int>(n - at < kBlock ? n - at : kBlock);
    const float* from = in + at;
    if (one) {
      for (int i = 0; i < size; ++i) more[i] = from[i] + 1.0f;
      from = more;
    }
    // Counted only if there are any.
    if (encode(from, size, dtype, out + at * item_size(dtype))) bad += count_bad(from, size, dtype);
  }
  return bad;
}

std::int64_t pack_q8_0(const float* in, std::int64_t n, std::byte* out) {
  std::int64_t bad = 0;
  for (; n > 0; --n, in += kElements, out += kElements + 2) {
    // Of non-negative floats the bits are in the order of the values, with NaN above infinity.
    std::uint32_t most = 0;
    for (int i = 0; i < kElements; ++i) {
      const std::uint32_t magnitude = bits_of(in[i]) & 0x7fffffffu;
      most = magnitude > most ? magnitude : most;
    }
    const bool finite = most < BitsOf<float>::kInfinity;
    const float step =
        finite ? real_of<float>(most) / 127.0f : real_of<float>(BitsOf<float>::kQuietNan);
    // Below this the inverse of the step is infinite, and the step is zero in 16 bits.
    const float inverse = 1.0f / step;
    const bool usable = finite && bits_of(inverse) < BitsOf<float>::kInfinity;
    const float factor = usable ? inverse : 0.0f;
    std::uint16_t half;
    if (encode(&step, 1, DType::kF16, &half)) bad += kElements;
    std::memcpy(out, &half, sizeof half);
    auto* const codes = reinterpret_cast<std::int8_t*>(out + 2);
    if (!usable) {
      std::memset(codes, 0, kElements);
      continue;
    }
    for (int i = 0; i < kElements; ++i) {
      const float scaled = in[i] * factor;
      const auto whole = static_cast<std::int32_t>(scaled);  // towards zero
      const float rest = scaled - static_cast<float>(whole);
      codes[i] = static_cast<std::int8_t>(whole + (rest >= 0.5f ? 1 : 0) - (rest <= -0.5f ? 1 : 0));
    }
  }
  return bad;
}

}  // namespace

PYMERGE_EXPORT(PackKernel, pack) = {{
    pack_floats<DType::kF32, false>,
    pack_floats<DType::kF16, false>,
    pack_floats<DType::kBF16, false>,
    pack_floats<DType::kF32, true>,
    pack_q8_0,
}};

}  // namespace pymerge
