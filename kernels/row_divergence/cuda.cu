// row_divergence: a warp works on a row, each thread on a canonical lane; a row is read three
// times, from a cache but the first time.
#include "common/canonical.h"
#include "common/cuda/launch.cuh"
#include "row_divergence/cuda.h"
#include "row_divergence/fixed_math.cuh"
#include "row_divergence/row_divergence.h"

namespace pymerge::cuda {
namespace {

constexpr int kRowThreads = 128;
constexpr int kRowsOfBlock = kRowThreads / kWarp;

struct RowParams {
  std::int64_t rows;
  std::int64_t length;
  Source base;
  Source tensor;
  double* out;
};

template <typename Format>
__device__ __forceinline__ typename Format::Real element(const Source& source, std::int64_t at) {
  typename Format::Real value[1];
  Format::template decode<1>(Format::template load<1>(source, at), value);
  return value[0];
}

// The fixed tree over a block's lanes; the same in all of a warp.
template <typename Lane>
__device__ __forceinline__ double add_warp(Lane lane) {
#pragma unroll
  for (int width = kLanes / 2; width > 0; width /= 2) {
    lane = lane + __shfl_xor_sync(kWholeWarp, lane, width);
  }
  return static_cast<double>(lane);
}

// Canonical sums over a row that begins at `begin`: add(at, sums) adds element `at`'s terms onto
// the lanes.
template <typename Lane, int n, typename Add>
__device__ __forceinline__ void sum_row(std::int64_t begin, std::int64_t length,
                                        double (&totals)[n], const Add& add) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
#pragma unroll
  for (int i = 0; i < n; ++i) totals[i] = 0;
#pragma unroll 1
  for (std::int64_t block = 0; block < length; block += kBlock) {
    Lane sums[n] = {};
    const std::int64_t left = length - block;
    const int size = static_cast<int>(left < kBlock ? left : kBlock);
#pragma unroll 4
    for (int ahead = lane; ahead < size; ahead += kLanes) add(begin + block + ahead, sums);
#pragma unroll
    for (int i = 0; i < n; ++i) totals[i] = totals[i] + add_warp(sums[i]);
  }
}

// Whether the row is near; then its divergence.
template <typename Format>
__device__ __forceinline__ bool find_near(const RowParams& p, std::int64_t begin,
                                          double& divergence) {
  std::uint32_t move = 0;
  std::uint32_t size = 0;
#pragma unroll 4
  for (std::int64_t ahead = threadIdx.x % kWarp; ahead < p.length; ahead += kLanes) {
    const float origin = element<Format>(p.base, begin + ahead);
    const std::uint32_t moved = key_of(element<Format>(p.tensor, begin + ahead) - origin);
    const std::uint32_t sized = key_of(origin);
    move = moved > move ? moved : move;
    size = sized > size ? sized : size;
  }
  move = __reduce_max_sync(kWholeWarp, move);
  size = __reduce_max_sync(kWholeWarp, size);
  if (move > __float_as_uint(kNearMove) || size > __float_as_uint(kNearSize)) return false;
  int halvings = 0;
  float half = 1;
  for (float most = __uint_as_float(size); most > kNearHalved; most /= 2) {
    ++halvings;
    half /= 2;
  }
  double sums[2];  // mass and shift
  sum_row<float>(begin, p.length, sums, [&](std::int64_t at, float (&lanes)[2]) {
    const float origin = element<Format>(p.base, at);
    const float power = near_exp(origin, half, halvings);
    lanes[0] = lanes[0] + power;
    lanes[1] = lanes[1] + power * near_growth(element<Format>(p.tensor, at) - origin);
  });
  const double mean = sums[1] / sums[0];
  const auto middle = static_cast<float>(mean);
  const auto scale = static_cast<float>(1.0 / sums[0]);
  const auto back = static_cast<float>(1.0 / (1.0 + mean));
  double total[1];
  sum_row<float>(begin, p.length, total, [&](std::int64_t at, float (&lanes)[1]) {
    const float origin = element<Format>(p.base, at);
    const float growth = near_growth(element<Format>(p.tensor, at) - origin);
    const float share = near_exp(origin, half, halvings) * scale;
    const float q = share + 1e-8f;
    const float r = (share / q) * ((growth - middle) * back);
    lanes[0] = lanes[0] + ((r * r) * q) * near_term(r);
  });
  divergence = total[0];
  return true;
}

// The greatest of a row that is a number.
__device__ __forceinline__ double find_greatest(const Source& source, std::int64_t begin,
                                                std::int64_t length) {
  double most = __longlong_as_double(static_cast<long long>(0xfff0000000000000u));
  for (std::int64_t ahead = threadIdx.x % kWarp; ahead < length; ahead += kLanes) {
    const double value = element<Mixed<double>>(source, begin + ahead);
    most = value > most ? value : most;
  }
#pragma unroll
  for (int apart = kWarp / 2; apart > 0; apart /= 2) {
    const double other = __shfl_xor_sync(kWholeWarp, most, apart);
    most = other > most ? other : most;
  }
  return most;
}

__device__ __forceinline__ double find_far(const RowParams& p, std::int64_t begin) {
  const Source sides[2] = {p.tensor, p.base};
  double greatest[2];
  double shares[2];
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    greatest[side] = find_greatest(sides[side], begin, p.length);
    double mass[1];
    sum_row<double>(begin, p.length, mass, [&](std::int64_t at, double (&lanes)[1]) {
      lanes[0] = lanes[0] + fixed_exp(element<Mixed<double>>(sides[side], at) - greatest[side]);
    });
    // An element or the greatest one was not finite.
    if (!(mass[0] > 0)) return __longlong_as_double(0x7ff8000000000000);
    shares[side] = 1.0 / mass[0];
  }
  double total[1];
  sum_row<double>(begin, p.length, total, [&](std::int64_t at, double (&lanes)[1]) {
    double powers[2];
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const double value = element<Mixed<double>>(sides[side], at);
      powers[side] = fixed_exp(value - greatest[side]) * shares[side] + 1e-8;
    }
    lanes[0] = lanes[0] + powers[0] * fixed_log(powers[0] / powers[1]);
  });
  return total[0] > 0 ? total[0] : 0.0;
}

template <typename Format>
__global__ void __launch_bounds__(kRowThreads, 1) diverge(const __grid_constant__ RowParams p) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kRowsOfBlock;
  const std::int64_t row = first + threadIdx.x / kWarp;
  if (row >= p.rows) return;
  const std::int64_t begin = row * p.length;
  double divergence = 0;
  bool near = false;
  if constexpr (std::is_same_v<typename Format::Real, float>) {
    near = find_near<Format>(p, begin, divergence);
  }
  if (!near) divergence = find_far(p, begin);
  if (threadIdx.x % kWarp == 0) p.out[row] = divergence;
}

}  // namespace

std::vector<double> row_divergence(const Stream& stream, const Inputs& inputs, const Lines& rows) {
  const DeviceArray<double> out(stream, static_cast<std::size_t>(rows.count));
  with_format(inputs, [&](auto format) {
    launch(stream, diverge<decltype(format)>, {divide_up(rows.count, kRowsOfBlock)}, kRowThreads,
           RowParams{rows.count, rows.length, source_of(inputs.base), source_of(inputs.tensors[0]),
                     out.data()});
  });
  return out.to_host();
}

}  // namespace pymerge::cuda
