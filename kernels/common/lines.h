// A tensor cut into vectors: its rows, or its columns.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace pymerge {

// `count` vectors of `length` elements: that of flat index e is e / length, or e % count if
// `strided`.
struct Lines {
  std::int64_t count = 0;
  std::int64_t length = 0;
  bool strided = false;
};

// A number for each vector; without any, there is nothing to multiply with.
struct LineFactors {
  const double* values = nullptr;
  Lines lines;
};

// The same with what it points to.
struct LineNumbers {
  std::vector<double> values;
  Lines lines;
  LineFactors view() const { return {values.empty() ? nullptr : values.data(), lines}; }
};

namespace {

// Rows of a strided tensor that are added in order before anything else; at most 16 such groups, so
// that their sums stay few next to the tensor.
inline std::int64_t group_rows(const Lines& lines) {
  const std::int64_t fitting = (std::int64_t{1} << 18) / std::max<std::int64_t>(1, lines.count);
  const std::int64_t groups = std::clamp<std::int64_t>(fitting, 1, 16);
  return std::max<std::int64_t>(1, (lines.length + groups - 1) / groups);
}

// Calls body(first, end, line) for the parts [first, end) of a run of `count` elements from flat
// index `begin` on that lie in one row, or between two ends of a row of columns: then the lines are
// line, line + 1, ...
template <typename Body>
inline void for_each_line(const Lines& lines, std::int64_t begin, int count, const Body& body) {
  const std::int64_t width = lines.strided ? lines.count : lines.length;
  for (int first = 0; first < count;) {
    const std::int64_t at = begin + first;
    const std::int64_t left = width - at % width;
    const int end = first + static_cast<int>(std::min<std::int64_t>(left, count - first));
    body(first, end, lines.strided ? at % width : at / width);
    first = end;
  }
}

// value[e] *= the number of the vector that element begin + e belongs to, rounded to Real.
template <typename Real>
inline void scale_lines(const Lines& lines, const double* numbers, std::int64_t begin, int count,
                        Real* value) {
  for_each_line(lines, begin, count, [&](int first, int end, std::int64_t line) {
    if (lines.strided) {
      const double* factors = numbers + line - first;
      for (int e = first; e < end; ++e) value[e] *= static_cast<Real>(factors[e]);
    } else {
      const Real factor = static_cast<Real>(numbers[line]);
      for (int e = first; e < end; ++e) value[e] *= factor;
    }
  });
}

}  // namespace

}  // namespace pymerge
