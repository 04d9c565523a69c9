// Element types: the codes of safetensors headers and their sizes. Knows nothing of arithmetic.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace pymerge {

enum class DType : std::uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
  kC64,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E5M2FNUZ,
  kF8E4M3FNUZ,
  kF6E2M3,
  kF6E3M2,
  kF4,
};

struct DTypeInfo {
  DType dtype;
  std::string_view code;
  int bits;
};

// In the order of the enum, so that the enum's value is the index.
constexpr DTypeInfo kDTypes[] = {
    {DType::kF64, "F64", 64},
    {DType::kF32, "F32", 32},
    {DType::kF16, "F16", 16},
    {DType::kBF16, "BF16", 16},
    {DType::kI64, "I64", 64},
    {DType::kI32, "I32", 32},
    {DType::kI16, "I16", 16},
    {DType::kI8, "I8", 8},
    {DType::kU64, "U64", 64},
    {DType::kU32, "U32", 32},
    {DType::kU16, "U16", 16},
    {DType::kU8, "U8", 8},
    {DType::kBool, "BOOL", 8},
    {DType::kC64, "C64", 64},
    {DType::kF8E5M2, "F8_E5M2", 8},
    {DType::kF8E4M3, "F8_E4M3", 8},
    {DType::kF8E8M0, "F8_E8M0", 8},
    {DType::kF8E5M2FNUZ, "F8_E5M2FNUZ", 8},
    {DType::kF8E4M3FNUZ, "F8_E4M3FNUZ", 8},
    {DType::kF6E2M3, "F6_E2M3", 6},
    {DType::kF6E3M2, "F6_E3M2", 6},
    {DType::kF4, "F4", 4},
};

constexpr int dtype_bits(DType dtype) { return kDTypes[static_cast<int>(dtype)].bits; }
constexpr std::int64_t item_size(DType dtype) { return dtype_bits(dtype) / 8; }
constexpr bool is_mergeable(DType dtype) { return dtype <= DType::kBF16; }

constexpr std::optional<DType> find_dtype(std::string_view code) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.code == code) return info.dtype;
  }
  return std::nullopt;
}

}  // namespace pymerge
