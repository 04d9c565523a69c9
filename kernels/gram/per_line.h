// Inner products of a canonical block, whole or the part of it that lies in one row; of columns.
#pragma once

#include "common/lanes.h"
#include "common/lines.h"
#include "common/rules.h"

namespace pymerge {
namespace {

// The n tensors' values (differences from the base, where there is one), kBlock apart.
template <typename Real>
void decode_all(const Operand* tensors, int n, const Operand* base, std::int64_t begin, int count,
                Real* scratch) {
  Real* const origin = base == nullptr ? nullptr : scratch + n * kBlock;
  if (origin != nullptr) decode(*base, begin, count, origin);
  for (int i = 0; i < n; ++i) {
    decode_delta(tensors[i], origin, begin, count, scratch + i * kBlock);
  }
}

// Sum of one block's products, a and b padded with zeros to kBlock.
template <typename Real, typename Lane>
double block_dot(const Real* a, const Real* b) {
  return block_sum<Lane>(
      [a, b](int k) { return Lanes<Lane>::load(a + k) * Lanes<Lane>::load(b + k); });
}

// The same with all elements but [first, end) taken for zeros.
template <typename Real, typename Lane>
double part_dot(const Real* a, const Real* b, int first, int end) {
  if (first == 0 && end == kBlock) return block_dot<Real, Lane>(a, b);
  const auto product = [a, b](int k) { return static_cast<Lane>(a[k]) * static_cast<Lane>(b[k]); };
  Lane lanes[kLanes] = {};
  int k = first;
  for (; k < end && k % kLanes != 0; ++k) lanes[k % kLanes] += product(k);
  for (; k + kLanes <= end; k += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += product(k + lane);
  }
  for (; k < end; ++k) lanes[k % kLanes] += product(k);
  return tree_sum(lanes);
}

template <typename Real, typename Lane>
void add_rows_as(const Operand* tensors, int n, const Operand* base, Range range,
                 const Lines& lines, std::int64_t tile, double* sums, double* edge, Real* scratch) {
  const std::int64_t pairs = n * (n + 1) / 2;
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    decode_all(tensors, n, base, begin, count, scratch);
    for_each_line(lines, begin, count, [&](int first, int end, std::int64_t row) {
      double* sum = row * lines.length < tile ? edge : sums + row * pairs;
      for (int i = 0; i < n; ++i) {
        for (int j = i; j < n; ++j) {
          *sum++ += part_dot<Real, Lane>(scratch + i * kBlock, scratch + j * kBlock, first, end);
        }
      }
    });
  });
}

void add_rows(const Operand* tensors, int n, const Operand* base, Compute compute, bool narrow,
              Range range, const Lines& lines, std::int64_t tile, double* sums, double* edge,
              void* scratch) {
  if (compute == Compute::kFloat64) {
    add_rows_as<double, double>(tensors, n, base, range, lines, tile, sums, edge,
                                static_cast<double*>(scratch));
  } else if (narrow) {
    add_rows_as<float, float>(tensors, n, base, range, lines, tile, sums, edge,
                              static_cast<float*>(scratch));
  } else {
    add_rows_as<float, double>(tensors, n, base, range, lines, tile, sums, edge,
                               static_cast<float*>(scratch));
  }
}

template <typename Real>
void add_columns_as(const Operand* tensors, int n, const Operand* base, Range range,
                    const Lines& lines, double* sums, Real* scratch) {
  for_each_chunk(range, [&](std::int64_t begin, int count) {
    decode_all(tensors, n, base, begin, count, scratch);
    for_each_line(lines, begin, count, [&](int first, int end, std::int64_t column) {
      double* __restrict sum = sums + column;
      for (int i = 0; i < n; ++i) {
        for (int j = i; j < n; ++j, sum += lines.count) {
          const Real* a = scratch + i * kBlock + first;
          const Real* b = scratch + j * kBlock + first;
          for (int e = 0; e < end - first; ++e) {
            sum[e] += static_cast<double>(a[e]) * static_cast<double>(b[e]);
          }
        }
      }
    });
  });
}

void add_columns(const Operand* tensors, int n, const Operand* base, Compute compute, Range range,
                 const Lines& lines, double* sums, void* scratch) {
  if (compute == Compute::kFloat64) {
    add_columns_as(tensors, n, base, range, lines, sums, static_cast<double*>(scratch));
  } else {
    add_columns_as(tensors, n, base, range, lines, sums, static_cast<float*>(scratch));
  }
}

}  // namespace
}  // namespace pymerge
