#include "dequantize/derived.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "common/chunk.h"
#include "core/error.h"
#include "dequantize/floats.h"
#include "runtime/isa.h"

namespace pymerge {
namespace {

constexpr std::int64_t kGroup = 32;
constexpr std::int64_t kGroupBytes = kGroup / 2;
// Bytes of codes that are read at a time.
constexpr std::int64_t kStep = 64 * kBlock;

[[noreturn]] void refuse() { throw Error(ErrorCode::kInternal, "codes and scales do not fit"); }

const DequantizeKernel& kernel() { return PYMERGE_SELECT_LEVEL(dequantize, active_isa()); }

std::int64_t ceiling(std::int64_t value, std::int64_t divisor) {
  return value / divisor + (value % divisor != 0 ? 1 : 0);
}

int find_fp8(DType dtype) {
  if (dtype == DType::kF8E4M3) return static_cast<int>(Fp8::kE4M3);
  if (dtype == DType::kF8E5M2) return static_cast<int>(Fp8::kE5M2);
  refuse();
}

int find_packed(const std::string& name) {
  for (int i = 0; i < static_cast<int>(Packed::kCount); ++i) {
    if (name == kPackedFormats[i].name) return i;
  }
  throw Error(ErrorCode::kInternal, "no blocks are called " + name);
}

}  // namespace

ScaledDerived::ScaledDerived(TensorView codes, TensorView scales, Shape shape)
    : kernel_(kernel()),
      codes_(std::move(codes)),
      scale_view_(std::move(scales)),
      shape_(shape),
      grid_rows_(ceiling(shape.rows, std::max<std::int64_t>(shape.block_rows, 1))),
      grid_columns_(ceiling(shape.columns, std::max<std::int64_t>(shape.block_columns, 1))),
      format_(find_fp8(codes_.dtype)) {
  if (shape_.matrices < 1 || shape_.rows < 1 || shape_.columns < 1 || shape_.block_rows < 1 ||
      shape_.block_columns < 1 || shape_.rows > codes_.count / shape_.columns ||
      shape_.matrices > codes_.count / (shape_.rows * shape_.columns) ||
      codes_.count != shape_.matrices * shape_.rows * shape_.columns ||
      scale_view_.count != shape_.matrices * grid_rows_ * grid_columns_) {
    refuse();
  }
  const DType dtype = scale_view_.dtype;
  if (dtype == DType::kF64 || (!is_mergeable(dtype) && dtype != DType::kF8E8M0)) refuse();
}

const std::vector<float>& ScaledDerived::scales(Scratch& scratch) const {
  std::call_once(found_, [&] {
    const TensorView& view = scale_view_;
    std::vector<float> values(static_cast<std::size_t>(view.count));
    std::byte* const stored = scratch.take_copies(static_cast<std::size_t>(kBlock) * sizeof(float));
    for (std::int64_t at = 0; at < view.count; at += kBlock) {
      const auto n = static_cast<int>(std::min(kBlock, view.count - at));
      view.read({at, n}, stored, scratch);
      float* const out = values.data() + at;
      if (view.dtype == DType::kF8E8M0) {
        for (int i = 0; i < n; ++i) out[i] = decode_e8m0(std::to_integer<std::uint32_t>(stored[i]));
      } else {
        decode(Operand{stored, view.dtype}, 0, n, out);
      }
    }
    scales_ = std::move(values);
  });
  return scales_;
}

void ScaledDerived::read(Range range, std::byte* out, Scratch& scratch) const {
  const float* const all = scales(scratch).data();
  auto* to = reinterpret_cast<float*>(out);
  std::byte* const copies =
      scratch.take_copies(static_cast<std::size_t>(std::min(kStep, range.count)));
  const auto* const codes = reinterpret_cast<const std::uint8_t*>(copies);
  const std::int64_t end = range.begin + range.count;
  for (std::int64_t begin = range.begin; begin < end; begin += kStep) {
    const std::int64_t stop = std::min(begin + kStep, end);
    codes_.read({begin, stop - begin}, copies, scratch);
    for (std::int64_t at = begin; at < stop;) {
      const std::int64_t line = at / shape_.columns;
      const std::int64_t column = at - line * shape_.columns;
      const std::int64_t n = std::min(shape_.columns - column, stop - at);
      const std::int64_t matrix = line / shape_.rows;
      const std::int64_t row = line - matrix * shape_.rows;
      const float* const scales =
          all + (matrix * grid_rows_ + row / shape_.block_rows) * grid_columns_;
      kernel_.scale_row[format_](codes + (at - begin), column, n, scales, shape_.block_columns, to);
      to += n;
      at += n;
    }
  }
}

void ScaledDerived::will_need(Range range) const {
  codes_.will_need(range);
  if (range.begin == 0) scale_view_.will_need({0, scale_view_.count});
}

void ScaledDerived::load(std::byte* buffer) const {
  codes_.load(buffer);
  scale_view_.load(buffer);
}

TurnedDerived::TurnedDerived(TensorView codes, TensorView scales, std::int64_t rows,
                             std::int64_t groups)
    : kernel_(kernel()),
      codes_(std::move(codes)),
      scales_(std::move(scales)),
      rows_(rows),
      groups_(groups),
      bytes_of_column_(ceiling(rows, 2)) {
  if (rows_ < 1 || groups_ < 1 || rows_ > scales_.count / groups_ ||
      scales_.count % (rows_ * groups_) != 0 || codes_.count / kGroupBytes != scales_.count ||
      codes_.count % kGroupBytes != 0 || dtype_bits(codes_.dtype) != 8 ||
      dtype_bits(scales_.dtype) != 8) {
    refuse();
  }
}

std::shared_ptr<const TurnedDerived::Turned> TurnedDerived::turn(std::int64_t matrix,
                                                                 Scratch& scratch) const {
  std::shared_ptr<Turned> found;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [number, turned] : kept_) {
      if (number == matrix) found = turned;
    }
    if (!found) {
      found = std::make_shared<Turned>();
      kept_.emplace_back(matrix, found);
      const std::int64_t most = kKept / (groups_ * (kGroup * bytes_of_column_ + rows_));
      while (static_cast<std::int64_t>(kept_.size()) > std::max<std::int64_t>(most, 2)) {
        kept_.pop_front();
      }
    }
  }
  std::call_once(found->made, [&] { make(matrix, *found, scratch); });
  return found;
}

void TurnedDerived::make(std::int64_t matrix, Turned& turned, Scratch& scratch) const {
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(groups_ * kGroup * bytes_of_column_));
  std::vector<std::uint8_t> scales(static_cast<std::size_t>(groups_ * rows_));
  const std::int64_t row_bytes = groups_ * kGroupBytes;
  // Two rows at a time share the bytes of the result.
  const std::int64_t rows_read = std::clamp<std::int64_t>(kStep / row_bytes / 2 * 2, 2, rows_ + 1);
  std::byte* const copies =
      scratch.take_copies(static_cast<std::size_t>(rows_read * (row_bytes + groups_)));
  auto* const read = reinterpret_cast<std::uint8_t*>(copies);
  for (std::int64_t first = 0; first < rows_; first += rows_read) {
    const std::int64_t n = std::min(rows_read, rows_ - first);
    const std::int64_t line = matrix * rows_ + first;
    codes_.read({line * row_bytes, n * row_bytes}, copies, scratch);
    std::uint8_t* const powers = read + rows_read * row_bytes;
    scales_.read({line * groups_, n * groups_}, reinterpret_cast<std::byte*>(powers), scratch);
    for (std::int64_t r = 0; r < n; ++r) {
      for (std::int64_t g = 0; g < groups_; ++g) {
        scales[static_cast<std::size_t>(g * rows_ + first + r)] = powers[r * groups_ + g];
      }
    }
    for (std::int64_t r = 0; r < n; r += 2) {
      const std::uint8_t* const one = read + r * row_bytes;
      const std::uint8_t* const other = r + 1 < n ? one + row_bytes : one;
      std::uint8_t* to = codes.data() + (first + r) / 2;
      for (std::int64_t i = 0; i < row_bytes; ++i, to += 2 * bytes_of_column_) {
        to[0] = static_cast<std::uint8_t>((one[i] & 15) | other[i] << 4);
        to[bytes_of_column_] = static_cast<std::uint8_t>(one[i] >> 4 | (other[i] & 0xf0));
      }
    }
  }
  turned.codes = std::move(codes);
  turned.scales = std::move(scales);
}

void TurnedDerived::read(Range range, std::byte* out, Scratch& scratch) const {
  auto* to = reinterpret_cast<float*>(out);
  const std::int64_t columns = groups_ * kGroup;
  const std::int64_t end = range.begin + range.count;
  std::shared_ptr<const Turned> turned;
  std::int64_t held = -1;
  for (std::int64_t at = range.begin; at < end;) {
    const std::int64_t line = at / rows_;
    const std::int64_t row = at - line * rows_;
    const std::int64_t matrix = line / columns;
    const std::int64_t column = line - matrix * columns;
    const std::int64_t n = std::min(rows_ - row, end - at);
    if (matrix != held) {
      turned = turn(matrix, scratch);
      held = matrix;
    }
    kernel_.scale_each(turned->codes.data() + column * bytes_of_column_, row, n,
                       turned->scales.data() + column / kGroup * rows_, to);
    to += n;
    at += n;
  }
}

void TurnedDerived::will_need(Range range) const {
  // Whole matrices; the hint for one is given where it begins.
  const std::int64_t size = rows_ * groups_ * kGroup;
  const std::int64_t first = ceiling(range.begin, size);
  const std::int64_t last = std::min(ceiling(range.begin + range.count, size),
                                     codes_.count / (rows_ * groups_ * kGroupBytes));
  if (first >= last) return;
  const std::int64_t groups = rows_ * groups_;
  codes_.will_need({first * groups * kGroupBytes, (last - first) * groups * kGroupBytes});
  scales_.will_need({first * groups, (last - first) * groups});
}

void TurnedDerived::load(std::byte* buffer) const {
  codes_.load(buffer);
  scales_.load(buffer);
}

PackedDerived::PackedDerived(TensorView blocks, const std::string& format)
    : kernel_(kernel()),
      blocks_(std::move(blocks)),
      number_(find_packed(format)),
      format_(kPackedFormats[number_]) {
  if (dtype_bits(blocks_.dtype) != 8 || blocks_.count % format_.bytes != 0) refuse();
}

void PackedDerived::read(Range range, std::byte* out, Scratch& scratch) const {
  auto* to = reinterpret_cast<float*>(out);
  const std::int64_t elements = format_.elements;
  const std::int64_t most = std::max<std::int64_t>(kStep / format_.bytes, 1);
  const std::int64_t end = range.begin + range.count;
  const std::int64_t past = ceiling(end, elements);
  std::byte* const copies = scratch.take_copies(static_cast<std::size_t>(most * format_.bytes));
  alignas(64) std::array<float, kMostPacked> part;
  for (std::int64_t first = range.begin / elements; first < past; first += most) {
    const std::int64_t n = std::min(most, past - first);
    blocks_.read({first * format_.bytes, n * format_.bytes}, copies, scratch);
    for (std::int64_t block = first; block < first + n;) {
      const std::byte* const in = copies + (block - first) * format_.bytes;
      const std::int64_t begin = std::max(range.begin, block * elements);
      const std::int64_t stop = std::min(end, (block + 1) * elements);
      // All whole ones together; of the first and the last the elements that are asked for.
      const std::int64_t whole =
          begin == block * elements ? std::min(end / elements, first + n) - block : 0;
      if (whole > 0) {
        kernel_.unpack[number_](in, whole, to);
        to += whole * elements;
        block += whole;
      } else {
        kernel_.unpack[number_](in, 1, part.data());
        to = std::copy(part.data() + (begin - block * elements),
                       part.data() + (stop - block * elements), to);
        ++block;
      }
    }
  }
}

void PackedDerived::will_need(Range range) const {
  const std::int64_t first = range.begin / format_.elements;
  const std::int64_t last = ceiling(range.begin + range.count, format_.elements);
  blocks_.will_need({first * format_.bytes, (last - first) * format_.bytes});
}

void PackedDerived::load(std::byte* buffer) const { blocks_.load(buffer); }

}  // namespace pymerge
