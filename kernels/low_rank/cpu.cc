// low_rank on the CPU: kRows rows and kColumns columns of the output at a time, so that a value of
// A is loaded once for kRows uses, and the sums stay in the first-level cache.
#include "low_rank/low_rank.h"

namespace pymerge {
namespace {

constexpr int kRows = 4;
constexpr int kColumns = 256;

template <int rows>
void add_block(const float* a, std::int64_t a_stride, const float* b, int rank, float scale,
               int columns, float* out, std::int64_t out_stride) {
  alignas(64) float sums[rows][kColumns];
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) sums[r][c] = 0.0f;
  }
  for (int j = 0; j < rank; ++j) {
    const float* __restrict line = a + j * a_stride;
    for (int r = 0; r < rows; ++r) {
      const float factor = b[r * rank + j];
      float* __restrict sum = sums[r];
      for (int c = 0; c < columns; ++c) sum[c] += factor * line[c];
    }
  }
  for (int r = 0; r < rows; ++r) {
    float* __restrict to = out + r * out_stride;
    const float* __restrict sum = sums[r];
    for (int c = 0; c < columns; ++c) to[c] += scale * sum[c];
  }
}

void add(const float* a, std::int64_t a_stride, const float* b, int rank, float scale,
         std::int64_t rows, std::int64_t columns, float* out, std::int64_t out_stride) {
  for (std::int64_t column = 0; column < columns; column += kColumns) {
    const auto n = static_cast<int>(columns - column < kColumns ? columns - column : kColumns);
    std::int64_t row = 0;
    for (; row + kRows <= rows; row += kRows) {
      add_block<kRows>(a + column, a_stride, b + row * rank, rank, scale, n,
                       out + row * out_stride + column, out_stride);
    }
    for (; row < rows; ++row) {
      add_block<1>(a + column, a_stride, b + row * rank, rank, scale, n,
                   out + row * out_stride + column, out_stride);
    }
  }
}

}  // namespace

PYMERGE_EXPORT(LowRankKernel, low_rank) = {add};

}  // namespace pymerge
