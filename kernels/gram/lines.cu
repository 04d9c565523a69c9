// gram of every row, or of every column.
#include "common/lines.h"
#include "gram/cuda.h"
#include "gram/pairs.cuh"

namespace pymerge::cuda {
namespace {

constexpr int kRowThreads = 128;
// Rows of a column that are loaded before one is used.
constexpr int kColumnRows = 4;

// Four threads a row: its part of each canonical block in order, blocks in order within a tile,
// then tiles in order.
template <typename Format, int models, typename Lane>
__global__ void __launch_bounds__(kRowThreads, 2) gram_rows(const __grid_constant__ GramParams p) {
  const Pairs<models> pairs(p, static_cast<int>(blockIdx.x) % p.tasks);
  const std::int64_t row =
      (static_cast<std::int64_t>(blockIdx.x) / p.tasks * kRowThreads + threadIdx.x) / kParts;
  const bool inside = row < p.lines.count;
  const std::int64_t begin = inside ? row * p.lines.length : 0;
  const std::int64_t end = inside ? begin + p.lines.length : 0;
  std::int64_t block = begin / kBlock;
  // As many as any row of the warp reaches into: all its threads fold together.
  const std::int64_t blocks = (p.lines.length + kBlock - 1) / kBlock + 1;
  double whole[Pairs<models>::kPairs] = {};
  double tile[Pairs<models>::kPairs] = {};
  for (std::int64_t i = 0; i < blocks; ++i, ++block) {
    Lane sums[Pairs<models>::kPairs][kVector] = {};
    if (block * kBlock < end) {
      const bool by_vectors = p.by_vectors && p.lines.length % kVector == 0;
      add_block<Format, models>(p, pairs, by_vectors, block * kBlock, begin, end, sums);
    }
#pragma unroll
    for (int pair = 0; pair < Pairs<models>::kPairs; ++pair) {
      if (block % kTileBlocks == 0) {
        whole[pair] += tile[pair];
        tile[pair] = 0;
      }
      tile[pair] += add_lanes(sums[pair]);
    }
  }
#pragma unroll
  for (int pair = 0; pair < Pairs<models>::kPairs; ++pair) {
    if (part_index() == 0 && inside && pairs.has_pair(pair)) {
      p.sums[row * (p.n * (p.n + 1) / 2) + pairs.place(pair)] = whole[pair] + tile[pair];
    }
  }
}

// One thread a column of one group of rows, to sums[group][pair][column].
template <typename Format, int models>
__global__ void __launch_bounds__(kThreads, 2) gram_columns(const __grid_constant__ GramParams p) {
  const Pairs<models> pairs(p, static_cast<int>(blockIdx.x) % p.tasks);
  const std::int64_t column =
      static_cast<std::int64_t>(blockIdx.x) / p.tasks * kThreads + threadIdx.x;
  if (column >= p.lines.count) return;
  const std::int64_t first = blockIdx.y * p.height;
  const std::int64_t left = p.lines.length - first;
  const std::int64_t rows = left < p.height ? left : p.height;
  double sums[Pairs<models>::kPairs][1] = {};
  for (std::int64_t row = 0; row < rows; row += kColumnRows) {
    GramLoad<Format, models, 1> loaded[kColumnRows];
#pragma unroll
    for (int i = 0; i < kColumnRows; ++i) {
      loaded[i].load(p, pairs, (first + row + i) * p.lines.count + column, row + i < rows);
    }
#pragma unroll
    for (int i = 0; i < kColumnRows; ++i) {
      typename Format::Real values[Pairs<models>::kTensors][1];
      loaded[i].decode(p, values);
      add_products<models>(values, sums);
    }
  }
#pragma unroll
  for (int pair = 0; pair < Pairs<models>::kPairs; ++pair) {
    if (pairs.has_pair(pair)) {
      const std::int64_t row = blockIdx.y * (p.n * (p.n + 1) / 2) + pairs.place(pair);
      p.sums[row * p.lines.count + column] = sums[pair][0];
    }
  }
}

struct GroupSums {
  const double* groups;  // [groups][pairs][columns]
  int count;
  std::int64_t pairs;
  std::int64_t columns;
  double* sums;  // [columns][pairs]
};

__global__ void add_groups(const __grid_constant__ GroupSums p) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= p.pairs * p.columns) return;
  double sum = 0;
  for (int group = 0; group < p.count; ++group) sum += p.groups[group * p.pairs * p.columns + at];
  p.sums[at % p.columns * p.pairs + at / p.columns] = sum;
}

}  // namespace

std::vector<double> gram_lines(const Stream& stream, const Inputs& inputs, const Lines& lines) {
  const std::int64_t pairs = inputs.size() * (inputs.size() + 1) / 2;
  const DeviceArray<double> sums(stream, static_cast<std::size_t>(pairs * lines.count));
  if (!lines.strided) {
    with_gram<2>(inputs, is_narrow(inputs), [&](auto format, auto models, auto lane) {
      constexpr int kModels = decltype(models)::value;
      const int tasks = count_tasks<kModels>(inputs.size());
      const HostTable<Source> tensors(stream, sources_of(inputs));
      launch(stream, gram_rows<decltype(format), kModels, decltype(lane)>,
             {divide_up(lines.count * kParts, kRowThreads) * tasks}, kRowThreads,
             gram_params(inputs, tensors, tasks, lines, sums.data()));
    });
    return sums.to_host();
  }
  const std::int64_t height = group_rows(lines);
  const std::int64_t groups = divide_up(lines.length, height);
  const DeviceArray<double> parts(stream, static_cast<std::size_t>(groups * pairs * lines.count));
  with_gram<2>(inputs, false, [&](auto format, auto models, auto lane) {
    if constexpr (std::is_same_v<decltype(lane), double>) {
      constexpr int kModels = decltype(models)::value;
      const int tasks = count_tasks<kModels>(inputs.size());
      const HostTable<Source> tensors(stream, sources_of(inputs));
      GramParams params = gram_params(inputs, tensors, tasks, lines, parts.data());
      params.height = height;
      launch(stream, gram_columns<decltype(format), kModels>,
             {divide_up(lines.count, kThreads) * tasks, groups}, kThreads, params);
    }
  });
  launch(stream, add_groups, {divide_up(pairs * lines.count, kThreads)}, kThreads,
         GroupSums{parts.data(), static_cast<int>(groups), pairs, lines.count, sums.data()});
  return sums.to_host();
}

}  // namespace pymerge::cuda
