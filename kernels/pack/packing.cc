#include "pack/packing.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/chunk.h"
#include "core/error.h"
#include "runtime/isa.h"

namespace pymerge {
namespace {

// Elements that are read at a time.
constexpr std::int64_t kStep = 64 * kBlock;
constexpr int kMostBytes = 34;  // of a block

int find_format(const std::string& name) {
  for (int i = 0; i < static_cast<int>(PackFormat::kCount); ++i) {
    if (name == kPackFormats[i].name) return i;
  }
  throw Error(ErrorCode::kInternal, "nothing is packed as " + name);
}

}  // namespace

Packing::Packing(TensorView tensor, const std::string& format)
    : tensor_(std::move(tensor)),
      format_(find_format(format)),
      block_(kPackFormats[format_]),
      pack_(PYMERGE_SELECT_LEVEL(pack, active_isa()).pack[format_]),
      blocks_(tensor_.count / block_.elements) {
  if (tensor_.count % block_.elements != 0 || !is_mergeable(tensor_.dtype)) {
    throw Error(ErrorCode::kInternal, "a tensor cannot be packed as " + format);
  }
}

std::int64_t Packing::bytes_read(std::int64_t length) const {
  return length / block_.bytes * block_.elements * item_size(tensor_.dtype);
}

const float* Packing::read(std::int64_t first, std::int64_t blocks, Scratch& scratch) const {
  const Range range{first * block_.elements, blocks * block_.elements};
  auto* const values =
      static_cast<float*>(scratch.take(static_cast<std::size_t>(range.count) * sizeof(float)));
  if (tensor_.dtype == DType::kF32) {
    tensor_.read(range, reinterpret_cast<std::byte*>(values), scratch);
    return values;
  }
  std::byte* const stored =
      scratch.take_copies(static_cast<std::size_t>(range.count * item_size(tensor_.dtype)));
  tensor_.read(range, stored, scratch);
  for (std::int64_t at = 0; at < range.count; at += kBlock) {
    const auto n = static_cast<int>(std::min(kBlock, range.count - at));
    decode(Operand{stored, tensor_.dtype}, at, n, values + at);
  }
  return values;
}

std::int64_t Packing::fill(std::int64_t begin, std::int64_t length, std::byte* out,
                           Scratch& scratch) const {
  const std::int64_t size = block_.bytes;
  const std::int64_t end = std::min(begin + length, blocks_ * size);
  const std::int64_t step = kStep / block_.elements;
  std::int64_t bad = 0;
  std::int64_t at = begin;
  while (at < end) {
    const std::int64_t first = at / size;
    const std::int64_t blocks = std::min(step, (end + size - 1) / size - first);
    const float* const values = read(first, blocks, scratch);
    for (std::int64_t done = 0; done < blocks;) {
      const std::int64_t place = (first + done) * size;
      const float* const from = values + done * block_.elements;
      // Blocks of which the range has a part are packed elsewhere.
      if (place < at || place + size > end) {
        std::byte whole[kMostBytes];
        bad += pack_(from, 1, whole);
        const std::int64_t skipped = std::max<std::int64_t>(at - place, 0);
        const std::int64_t n = std::min(place + size, end) - (place + skipped);
        std::memcpy(out + (place + skipped - begin), whole + skipped, static_cast<std::size_t>(n));
        ++done;
      } else {
        const std::int64_t n = std::min(blocks - done, (end - place) / size);
        bad += pack_(from, n, out + (place - begin));
        done += n;
      }
    }
    at = std::min((first + blocks) * size, end);
  }
  const std::int64_t padding = std::max(begin, blocks_ * size);
  if (padding < begin + length) {
    std::memset(out + (padding - begin), 0, static_cast<std::size_t>(begin + length - padding));
  }
  return bad;
}

std::int64_t Packing::find_nonfinite(Scratch& scratch) const {
  const std::int64_t step = kStep / block_.elements;
  for (std::int64_t first = 0; first < blocks_; first += step) {
    const std::int64_t blocks = std::min(step, blocks_ - first);
    const float* const values = read(first, blocks, scratch);
    for (std::int64_t i = 0; i < blocks; ++i) {
      std::byte whole[kMostBytes];
      const float* const from = values + i * block_.elements;
      if (pack_(from, 1, whole) == 0) continue;
      const float* const past = from + block_.elements;
      const float* const found = std::find_if(
          from, past, [](float x) { return (bits_of(x) & 0x7fffffffu) >= 0x7f800000u; });
      return (first + i) * block_.elements + (found == past ? 0 : found - from);
    }
  }
  return -1;
}

}  // namespace pymerge
