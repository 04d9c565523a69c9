// Where the runs of elements lie that a bracket is guessed from.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "common/lines.h"

namespace pymerge {

inline constexpr std::int64_t kRunLength = 64;
// Rows that are put in the order of their factors at most.
inline constexpr std::int64_t kMostOrdered = 4096;

// Multiples of the golden ratio, the most even places in [0, 1) for any number of runs.
inline double even_place(std::int64_t run) {
  const double place = static_cast<double>(run) * 0.6180339887498949;
  return place - std::floor(place);
}

// Where the runs of a sample begin: one in each of `runs` equal parts, at another place in each, or
// all of them would lie in the same columns where a row's length divides a part's.
inline std::vector<std::int64_t> spread_runs(std::int64_t count, std::int64_t runs) {
  const std::int64_t part = count / runs;
  const auto room = static_cast<double>(std::max<std::int64_t>(0, part - kRunLength));
  std::vector<std::int64_t> starts;
  for (std::int64_t run = 0; run < runs; ++run) {
    starts.push_back(run * part + static_cast<std::int64_t>(even_place(run) * room));
  }
  return starts;
}

// The same where rows have factors: a run lies in one row, so as many runs tell little about how
// factors differ. But those are known: the runs are spread evenly over the rows in the order of
// their factors.
inline std::vector<std::int64_t> spread_runs(const LineNumbers& factors, std::int64_t runs) {
  const Lines& rows = factors.lines;
  std::vector<std::pair<std::uint64_t, std::int64_t>> order;  // not negative: bits order as numbers
  for (std::int64_t i = 0; i < std::min(rows.count, kMostOrdered); ++i) {
    const std::int64_t row = i * rows.count / std::min(rows.count, kMostOrdered);
    std::uint64_t bits;
    std::memcpy(&bits, &factors.values[static_cast<std::size_t>(row)], sizeof bits);
    order.emplace_back(bits, row);
  }
  std::sort(order.begin(), order.end());
  const auto size = static_cast<std::int64_t>(order.size());
  std::vector<std::int64_t> starts;
  for (std::int64_t run = 0; run < runs; ++run) {
    const std::int64_t row = order[static_cast<std::size_t>(run * size / runs)].second;
    const double room = static_cast<double>(std::max<std::int64_t>(0, rows.length - kRunLength));
    const auto offset = static_cast<std::int64_t>(even_place(run) * room);
    starts.push_back(std::min(row * rows.length + offset, rows.count * rows.length - kRunLength));
  }
  return starts;
}

}  // namespace pymerge
