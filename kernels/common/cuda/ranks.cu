// A block of threads ranks one segment of a row after the other: its largest magnitude, how many
// there are of each class, then every element's draw against its class's threshold. Of three passes
// over a segment two find it in a cache.
#include "common/cuda/blocks.cuh"
#include "common/cuda/draws.cuh"
#include "common/cuda/ranks.h"
#include "common/segments.h"

namespace pymerge::cuda {
namespace {

constexpr int kClasses = 256;  // one a thread
constexpr int kClassBits = 4;

struct Ranking {
  std::int64_t count;
  std::int64_t row;
  std::int64_t row_segments;
  std::int64_t segments;
  bool has_base;
  Source base;
  Source tensor;
  std::uint64_t key;
  double middle;  // thresholds, in draws: of the middle rank, and from the first to the last
  double slope;
  std::uint32_t* mask;
};

// The magnitude's bit pattern after four bits of mantissa; what is not finite has the largest.
template <typename Real>
__device__ __forceinline__ int rank_key(Real value) {
  constexpr int kShift = (std::is_same_v<Real, double> ? 52 : 23) - kClassBits;
  return static_cast<int>(key_of(value) >> kShift);
}
template <typename Real>
inline constexpr int kInfinite = (std::is_same_v<Real, double> ? 0x7ff : 0xff) << kClassBits;

template <typename Format>
__device__ __forceinline__ int key_at(const Ranking& p, std::int64_t at) {
  typename Format::Real value[1];
  Format::template decode<1>(Format::template load<1>(p.tensor, at), value);
  if (p.has_base) {
    typename Format::Real origin[1];
    Format::template decode<1>(Format::template load<1>(p.base, at), origin);
    value[0] = value[0] - origin[0];
  }
  return rank_key(value[0]);
}

template <typename Real>
__device__ __forceinline__ int class_of(int key, int first) {
  if (key >= kInfinite<Real>) return kClasses - 1;
  return key > first ? key - first : 0;
}

template <typename Format>
__global__ void __launch_bounds__(kClasses, 1) rank_segments(const __grid_constant__ Ranking p) {
  using Real = typename Format::Real;
  __shared__ unsigned counts[kClasses];
  __shared__ std::uint32_t limits[kClasses];
  __shared__ int top;
  const int thread = static_cast<int>(threadIdx.x);
  for (std::int64_t segment = blockIdx.x; segment < p.segments; segment += gridDim.x) {
    const std::int64_t row = segment / p.row_segments;
    const std::int64_t ahead = (segment - row * p.row_segments) * kSegment;
    const std::int64_t begin = row * p.row + ahead;
    std::int64_t end = begin + kSegment;
    if (end > (row + 1) * p.row) end = (row + 1) * p.row;
    if (end > p.count) end = p.count;
    __syncthreads();  // nobody is at the last segment any more
    counts[thread] = 0;
    if (thread == 0) top = 0;
    __syncthreads();
    int most = 0;
    for (std::int64_t at = begin + thread; at < end; at += kClasses) {
      const int key = key_at<Format>(p, at);
      if (key < kInfinite<Real> && key > most) most = key;
    }
    most = static_cast<int>(__reduce_max_sync(kWholeWarp, static_cast<unsigned>(most)));
    if (thread % kWarp == 0) atomicMax(&top, most);
    __syncthreads();
    // The largest finite key is class kClasses - 2.
    const int first = top > kClasses - 2 ? top - (kClasses - 2) : 0;
    for (std::int64_t at = begin + thread; at < end; at += kClasses) {
      atomicAdd(&counts[class_of<Real>(key_at<Format>(p, at), first)], 1u);
    }
    __syncthreads();
    const auto size = static_cast<int>(end - begin);
    const auto mine = static_cast<int>(counts[thread]);
    const auto below = static_cast<int>(block_scan(mine).before);
    const double slope = p.slope / (size > 2 ? size - 1 : 1);
    double limit = p.middle + slope * (2 * below + mine - size);
    limit = limit < 1.0 ? 1.0 : limit > 65535.0 ? 65535.0 : limit;
    limits[thread] = static_cast<std::uint32_t>(limit) << 16;
    __syncthreads();
    // A warp's 32 neighbors are a word of the mask; a thread has one counter.
    const std::int64_t first_block = begin / kBlock;
    const std::int64_t counters = ((end - 1) / kBlock + 1 - first_block) * kSlab;
    for (std::int64_t i = thread; i < counters; i += kClasses) {
      const auto counter = static_cast<std::uint64_t>(first_block * kSlab + i);
      const std::int64_t element = (first_block + i / kSlab) * kBlock + i % kSlab;
      const uint4 words = philox(counter, p.key);
#pragma unroll
      for (int slab = 0; slab < kSlabs; ++slab) {
        const std::int64_t at = element + slab * kSlab;
        bool kept = false;
        if (at >= begin && at < end) {
          kept = draw_in(words, slab) < limits[class_of<Real>(key_at<Format>(p, at), first)];
        }
        const unsigned bits = __ballot_sync(kWholeWarp, kept);
        // Words that two segments share are put together.
        if (thread % kWarp == 0 && bits != 0) atomicOr(&p.mask[at / kWarp], bits);
      }
    }
  }
}

}  // namespace

RankMasks::RankMasks(const Stream& stream, const Inputs& inputs, const std::vector<Rule>& rules) {
  for (std::size_t model = 0; model < rules.size(); ++model) {
    const Rule& rule = rules[model];
    const bool ranked = rule.kind == Rule::Kind::kRanked;
    masks_.emplace_back(stream,
                        static_cast<std::size_t>(ranked ? divide_up(inputs.count, kWarp) : 0));
    if (!ranked) continue;
    masks_.back().clear();
    const std::int64_t row_segments = divide_up(rule.row, kSegment);
    const std::int64_t segments =
        inputs.count / rule.row * row_segments + divide_up(inputs.count % rule.row, kSegment);
    const std::int64_t blocks = std::min<std::int64_t>(segments, INT32_MAX);
    const Ranking ranking{inputs.count,
                          rule.row,
                          row_segments,
                          segments,
                          inputs.has_base,
                          source_of(inputs.base),
                          source_of(inputs.tensors[model]),
                          rule.key,
                          rule.density * 65536.0 + 0.5,
                          rule.epsilon * 65536.0,
                          masks_.back().data()};
    with_format(inputs, [&](auto format) {
      launch(stream, rank_segments<decltype(format)>, {blocks}, kClasses, ranking);
    });
  }
}

}  // namespace pymerge::cuda
