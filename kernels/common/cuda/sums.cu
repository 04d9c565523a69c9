// From block sums to tile sums.
#include "common/cuda/sums.cuh"

namespace pymerge::cuda {
namespace {

struct TileSums {
  const double* blocks;
  std::int64_t count;  // blocks of a row
  std::int64_t tiles;
  std::int64_t rows;
  double* sums;
};

__global__ void add_blocks(const __grid_constant__ TileSums p) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= p.tiles * p.rows) return;
  const std::int64_t tile = at / p.rows;
  const std::int64_t row = at - tile * p.rows;
  const double* const blocks = p.blocks + row * p.count + tile * kTileBlocks;
  const std::int64_t left = p.count - tile * kTileBlocks;
  const int size = static_cast<int>(left < kTileBlocks ? left : kTileBlocks);
  double sum = 0;
#pragma unroll 16
  for (int i = 0; i < size; ++i) sum += blocks[i];
  p.sums[at] = sum;
}

}  // namespace

std::vector<double> tile_sums(const Stream& stream, const DeviceArray<double>& blocks,
                              std::int64_t rows, std::int64_t count) {
  // The blocks that the last tile lacks would be zeros, which change no sum.
  const std::int64_t tiles = tile_count(count);
  const DeviceArray<double> sums(stream, static_cast<std::size_t>(tiles * rows));
  launch(stream, add_blocks, {divide_up(tiles * rows, kWarp)}, kWarp,
         TileSums{blocks.data(), block_count(count), tiles, rows, sums.data()});
  return sums.to_host();
}

}  // namespace pymerge::cuda
