// low_rank on the CPU: the sums of kRows rows and of a tile's columns stay in registers throughout
// a product, so that a value of A is loaded once for kRows uses, and one of B once for a tile.
#include <cstring>

#include "common/lanes.h"
#include "low_rank/low_rank.h"

namespace pymerge {
namespace {

constexpr int kRows = 4;
using Vector [[gnu::vector_size(kVectorBytes)]] = float;
constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(float));
constexpr int kVectors = kTileColumns / kWidth;

inline Vector load(const float* from) {
  Vector value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Columns [first, last) of a tile; out points at the first of them.
template <int rows>
void add_tile(const float* a, const float* b, int rank, float scale, int first, int last,
              float* out, std::int64_t out_stride) {
  Vector sums[rows][kVectors] = {};
  for (int j = 0; j < rank; ++j, a += kTileColumns) {
    for (int v = 0; v < kVectors; ++v) {
      const Vector line = load(a + v * kWidth);
      for (int r = 0; r < rows; ++r) sums[r][v] += b[r * rank + j] * line;
    }
  }
  for (int r = 0; r < rows; ++r) {
    float* const to = out + r * out_stride;
    if (last - first == kTileColumns) {
      for (int v = 0; v < kVectors; ++v) {
        const Vector value = load(to + v * kWidth) + scale * sums[r][v];
        std::memcpy(to + v * kWidth, &value, sizeof value);
      }
    } else {
      float values[kTileColumns];
      std::memcpy(values, sums[r], sizeof values);
      for (int c = first; c < last; ++c) to[c - first] += scale * values[c];
    }
  }
}

void add(const float* a, const float* b, int rank, float scale, std::int64_t rows,
         std::int64_t column, std::int64_t columns, float* out, std::int64_t out_stride) {
  const std::int64_t end = column + columns;
  for (std::int64_t at = column; at < end;) {
    const std::int64_t tile = at / kTileColumns;
    const auto first = static_cast<int>(at - tile * kTileColumns);
    const std::int64_t left = end - tile * kTileColumns;
    const auto last = static_cast<int>(left < kTileColumns ? left : kTileColumns);
    const float* const packed = a + tile * rank * kTileColumns;
    float* const to = out + (at - column);
    std::int64_t row = 0;
    for (; row + kRows <= rows; row += kRows) {
      add_tile<kRows>(packed, b + row * rank, rank, scale, first, last, to + row * out_stride,
                      out_stride);
    }
    for (; row < rows; ++row) {
      add_tile<1>(packed, b + row * rank, rank, scale, first, last, to + row * out_stride,
                  out_stride);
    }
    at += last - first;
  }
}

}  // namespace

PYMERGE_EXPORT(LowRankKernel, low_rank) = {add};

}  // namespace pymerge
