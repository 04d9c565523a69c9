#include "common/combine.h"

#include <algorithm>
#include <cstring>

namespace pymerge {
namespace {

template <typename Word>
bool all_ones_exponent(const std::byte* data, std::int64_t index, Word exponent) {
  Word word;
  std::memcpy(&word, data + index * static_cast<std::int64_t>(sizeof word), sizeof word);
  return (word & exponent) == exponent;
}

bool is_nonfinite(const std::byte* data, DType dtype, std::int64_t index) {
  switch (dtype) {
    case DType::kBF16:
      return all_ones_exponent<std::uint16_t>(data, index, 0x7f80u);
    case DType::kF16:
      return all_ones_exponent<std::uint16_t>(data, index, 0x7c00u);
    case DType::kF32:
      return all_ones_exponent<std::uint32_t>(data, index, 0x7f800000u);
    case DType::kF64:
      return all_ones_exponent<std::uint64_t>(data, index, 0x7ff0000000000000u);
    default:
      return false;
  }
}

}  // namespace

std::int64_t Combine::fill(Range range, std::byte* out, Scratch& scratch) {
  bool bad = false;
  inputs_.for_each_piece(range, scratch, [&](const Inputs::Piece& piece) {
    const std::int64_t offset = (piece.range.begin - range.begin) * item_size(out_dtype_);
    bad |= combine(piece, out + offset, scratch);
  });
  return bad ? count_nonfinite(out, out_dtype_, range.count) : 0;
}

void CombineJob::run(std::int64_t tile, Scratch& scratch) {
  const std::int64_t begin = tile * kTile;
  const Range range{begin, std::min(kTile, count_ - begin)};
  nonfinite_ += combine_->fill(range, out_ + begin * item_size(combine_->out_dtype()), scratch);
}

std::int64_t count_nonfinite(const std::byte* data, DType dtype, std::int64_t count) {
  std::int64_t total = 0;
  for (std::int64_t i = 0; i < count; ++i) total += is_nonfinite(data, dtype, i) ? 1 : 0;
  return total;
}

std::int64_t find_nonfinite(const std::byte* data, DType dtype, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (is_nonfinite(data, dtype, i)) return i;
  }
  return -1;
}

}  // namespace pymerge
