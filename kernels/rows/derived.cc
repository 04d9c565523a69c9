#include "rows/derived.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "common/chunk.h"
#include "core/error.h"

namespace pymerge {

RowsDerived::RowsDerived(std::vector<TensorView> parts, RowChoice choice, std::int64_t width,
                         DType dtype)
    : parts_(std::move(parts)),
      choice_(std::move(choice)),
      width_(width),
      dtype_(dtype),
      found_(parts_.size()),
      means_(parts_.size()) {
  const auto entries = static_cast<std::int64_t>(choice_.rows.size());
  const auto refuse = [](const char* what) { throw Error(ErrorCode::kInternal, what); };
  if (width_ < 1 || choice_.starts.empty() || choice_.starts.front() != 0 ||
      choice_.starts.back() != entries || choice_.parts.size() != choice_.rows.size() ||
      !std::is_sorted(choice_.starts.begin(), choice_.starts.end())) {
    refuse("a choice of rows is inconsistent");
  }
  for (std::size_t k = 0; k < choice_.rows.size(); ++k) {
    const std::int64_t part = choice_.parts[k];
    if (part < 0 || part >= static_cast<std::int64_t>(parts_.size())) {
      refuse("a choice of rows names a part that is not there");
    }
    const TensorView& view = parts_[static_cast<std::size_t>(part)];
    if (choice_.rows[k] < RowChoice::kMean || (choice_.rows[k] + 1) * width_ > view.count) {
      refuse("a choice of rows leads out of a part");
    }
  }
  for (std::int64_t row = 0; dtype_ != DType::kF32 && row < rows(); ++row) {
    const auto at = static_cast<std::size_t>(row);
    const std::int64_t size = choice_.starts[at + 1] - choice_.starts[at];
    const auto entry = static_cast<std::size_t>(choice_.starts[at]);
    if (size == 0) continue;
    if (size > 1 || choice_.rows[entry] == RowChoice::kMean ||
        parts_[static_cast<std::size_t>(choice_.parts[entry])].dtype != dtype_) {
      refuse("rows that are not plain copies are float32");
    }
  }
}

std::int64_t RowsDerived::run_of(std::int64_t row, std::int64_t end) const {
  std::int64_t run = 0;
  std::size_t first = 0;
  for (; row + run < end; ++run) {
    const auto at = static_cast<std::size_t>(row + run);
    const auto entry = static_cast<std::size_t>(choice_.starts[at]);
    if (choice_.starts[at + 1] - choice_.starts[at] != 1) break;
    if (run == 0) first = entry;
    if (choice_.rows[entry] == RowChoice::kMean || choice_.parts[entry] != choice_.parts[first] ||
        choice_.rows[entry] != choice_.rows[first] + run) {
      break;
    }
  }
  return run;
}

void RowsDerived::read(Range range, std::byte* out, Scratch& scratch) const {
  const std::int64_t end = range.begin + range.count;
  const std::int64_t past = (end + width_ - 1) / width_;
  for (std::int64_t at = range.begin; at < end;) {
    const std::int64_t row = at / width_;
    const std::int64_t column = at - row * width_;
    const std::int64_t run = run_of(row, past);
    const std::int64_t stop = std::min(end, (row + std::max<std::int64_t>(run, 1)) * width_);
    const std::int64_t n = stop - at;
    const auto entry = static_cast<std::size_t>(choice_.starts[static_cast<std::size_t>(row)]);
    if (run == 0) {
      const Range columns{column, n};
      if (entry == static_cast<std::size_t>(choice_.starts[static_cast<std::size_t>(row) + 1])) {
        std::memset(out, 0, static_cast<std::size_t>(n * item_size(dtype_)));
      } else {
        read_mean(row, columns, reinterpret_cast<float*>(out), scratch);
      }
    } else {
      const std::int64_t part = choice_.parts[entry];
      const Range there{choice_.rows[entry] * width_ + column, n};
      if (parts_[static_cast<std::size_t>(part)].dtype == dtype_) {
        parts_[static_cast<std::size_t>(part)].read(there, out, scratch);
      } else {
        read_decoded(part, there, reinterpret_cast<float*>(out), scratch);
      }
    }
    out += n * item_size(dtype_);
    at = stop;
  }
}

void RowsDerived::read_decoded(std::int64_t part, Range range, float* out, Scratch& scratch) const {
  const TensorView& view = parts_[static_cast<std::size_t>(part)];
  std::byte* const stored = scratch.take_copies(static_cast<std::size_t>(kBlock) * sizeof(double));
  for (std::int64_t at = 0; at < range.count; at += kBlock) {
    const std::int64_t n = std::min(kBlock, range.count - at);
    view.read({range.begin + at, n}, stored, scratch);
    decode(Operand{stored, view.dtype}, 0, static_cast<int>(n), out + at);
  }
}

void RowsDerived::read_mean(std::int64_t row, Range columns, float* out, Scratch& scratch) const {
  const std::int64_t first = choice_.starts[static_cast<std::size_t>(row)];
  const std::int64_t last = choice_.starts[static_cast<std::size_t>(row) + 1];
  std::fill(out, out + columns.count, 0.0f);
  auto* const values =
      static_cast<float*>(scratch.take(static_cast<std::size_t>(columns.count) * sizeof(float)));
  for (std::int64_t k = first; k < last; ++k) {
    const std::int64_t part = choice_.parts[static_cast<std::size_t>(k)];
    const std::int64_t source = choice_.rows[static_cast<std::size_t>(k)];
    if (source == RowChoice::kMean) {
      const float* const mean = mean_of(part, scratch).data() + columns.begin;
      std::copy(mean, mean + columns.count, values);
    } else {
      read_decoded(part, {source * width_ + columns.begin, columns.count}, values, scratch);
    }
    for (std::int64_t i = 0; i < columns.count; ++i) out[i] += values[i];
  }
  const auto divisor = static_cast<float>(last - first);
  for (std::int64_t i = 0; i < columns.count; ++i) out[i] /= divisor;
}

const std::vector<float>& RowsDerived::mean_of(std::int64_t part, Scratch& scratch) const {
  const auto index = static_cast<std::size_t>(part);
  std::call_once(found_[index], [&] {
    const std::int64_t count = parts_[index].count / width_;
    const auto width = static_cast<std::size_t>(width_);
    std::vector<double> sums(width);
    std::vector<float> values(width);
    for (std::int64_t row = 0; row < count; ++row) {
      read_decoded(part, {row * width_, width_}, values.data(), scratch);
      for (std::size_t i = 0; i < width; ++i) sums[i] += static_cast<double>(values[i]);
    }
    for (std::size_t i = 0; i < width; ++i) {
      values[i] = static_cast<float>(sums[i] / static_cast<double>(count));
    }
    means_[index] = std::move(values);
  });
  return means_[index];
}

void RowsDerived::will_need(Range range) const {
  // Most rows lie about where they will be.
  for (const TensorView& part : parts_) {
    if (range.begin < part.count) {
      part.will_need({range.begin, std::min(range.count, part.count - range.begin)});
    }
  }
}

void RowsDerived::load(std::byte* buffer) const {
  for (const TensorView& part : parts_) part.load(buffer);
}

}  // namespace pymerge
