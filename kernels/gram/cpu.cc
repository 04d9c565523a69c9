// gram on the CPU. Reads every input once; n (n + 1) / 2 multiply-adds an element.
#include <algorithm>

#include "common/lines.h"
#include "gram/dots.h"
#include "gram/fused.h"
#include "gram/gram.h"

namespace pymerge {
namespace {

// Calls body(dots) with the loops for a compute type and its lanes.
template <typename Body>
void with_dots(const Operand* tensors, int n, const Operand* base, Compute compute, bool narrow,
               void* scratch, const Body& body) {
  if (compute == Compute::kFloat64) {
    body(Dots<double, double>(tensors, n, base, static_cast<double*>(scratch)));
  } else if (narrow) {
    body(Dots<float, float>(tensors, n, base, static_cast<float*>(scratch)));
  } else {
    body(Dots<float, double>(tensors, n, base, static_cast<float*>(scratch)));
  }
}

void add(const Operand* tensors, int n, const Operand* base, Compute compute, bool narrow,
         Range range, double* sums, void* scratch) {
  with_dots(tensors, n, base, compute, narrow, scratch, [&](const auto& dots) {
    for_each_chunk(range, [&](std::int64_t begin, int count) { dots.add(begin, 0, count, sums); });
  });
}

// Rows shorter than this are decoded many at a time, columns fewer than this by whole blocks.
constexpr std::int64_t kShort = kLanes;

void add_rows(const Operand* tensors, int n, const Operand* base, Compute compute, bool narrow,
              Range range, const Lines& lines, std::int64_t tile, double* sums, double* edge,
              void* scratch) {
  const std::int64_t pairs = n * (n + 1) / 2;
  const auto sums_of = [=](std::int64_t row) {
    return row * lines.length < tile ? edge : sums + row * pairs;
  };
  with_dots(tensors, n, base, compute, narrow, scratch, [&](const auto& dots) {
    for_each_chunk(range, [&](std::int64_t begin, int count) {
      if (lines.length < kShort) {
        dots.decode_part(begin, 0, count);
        for_each_line(lines, begin, count, [&](int first, int end, std::int64_t row) {
          dots.add_decoded(first, end, sums_of(row));
        });
        return;
      }
      for_each_line(lines, begin, count, [&](int first, int end, std::int64_t row) {
        dots.add(begin, first, end, sums_of(row));
      });
    });
  });
}

// The products of a run of one canonical block, by plain loops.
template <typename Real>
void add_columns_plain(const Dots<Real, double>& dots, std::int64_t begin, int count,
                       const Lines& lines, double* sums) {
  dots.decode_part(begin, 0, count);
  for_each_line(lines, begin, count, [&](int first, int end, std::int64_t column) {
    double* __restrict sum = sums + column;
    for (int i = 0; i < dots.size(); ++i) {
      for (int j = i; j < dots.size(); ++j, sum += lines.count) {
        const Real* a = dots.values(i) + first;
        const Real* b = dots.values(j) + first;
        for (int e = 0; e < end - first; ++e) {
          sum[e] += static_cast<double>(a[e]) * static_cast<double>(b[e]);
        }
      }
    }
  });
}

// Rows whose columns are added to registers before these are stored. A cache line of each and of
// every tensor is in use at a time, often all in one set of eight: two tensors of these fit.
constexpr std::int64_t kRows = 4;

template <typename Real>
void add_columns_as(const Operand* tensors, int n, const Operand* base, Range range,
                    const Lines& lines, double* sums, Real* scratch) {
  const Dots<Real, double> dots(tensors, n, base, scratch);
  const std::int64_t width = lines.count;
  if (width < kShort) {
    for_each_chunk(range, [&](std::int64_t begin, int count) {
      add_columns_plain(dots, begin, count, lines, sums);
    });
    return;
  }
  const std::int64_t end = range.begin + range.count;
  for (std::int64_t at = range.begin; at < end;) {
    // The rest of a row, or a few whole ones.
    const std::int64_t column = at % width;
    const std::int64_t rows =
        column != 0 ? 1 : std::clamp<std::int64_t>((end - at) / width, 1, kRows);
    const std::int64_t count = std::min(width - column, end - at);
    const std::int64_t done =
        add_columns_fused<VectorFor<Real>>(tensors, n, base, at, count, rows, width, sums + column);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t from = done; from < count; from += kBlock) {
        const int part = static_cast<int>(std::min(kBlock, count - from));
        add_columns_plain(dots, at + row * width + from, part, lines, sums);
      }
    }
    at += (rows - 1) * width + count;
  }
}

void add_columns(const Operand* tensors, int n, const Operand* base, Compute compute, Range range,
                 const Lines& lines, double* sums, void* scratch) {
  if (compute == Compute::kFloat64) {
    add_columns_as(tensors, n, base, range, lines, sums, static_cast<double*>(scratch));
  } else {
    add_columns_as(tensors, n, base, range, lines, sums, static_cast<float*>(scratch));
  }
}

std::size_t scratch_bytes(int n) {
  return static_cast<std::size_t>(n + 1) * kBlock * sizeof(double);
}

}  // namespace

PYMERGE_EXPORT(GramKernel, gram) = {add, scratch_bytes, add_rows, add_columns};

}  // namespace pymerge
