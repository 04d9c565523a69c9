// A sample's order statistics a little above and below each wanted rank: a block for each holds the
// sample in registers and finds a key's bits from the top, by counting.
#include "select/cuda/passes.cuh"

namespace pymerge::cuda {
namespace {

constexpr int kSampleThreads = kMostThreads;
template <typename Key>
constexpr int kEach = kSampleKeys<Key> / kSampleThreads;

// Elements that are sampled next to each other: of lines so few that every line has some.
__device__ __forceinline__ int run_length(How how) { return how == How::kLines ? 4 : kWarp; }

// Where the `at`-th of a sample lies; runs are spread evenly, by multiples of the golden ratio
// within the parts, since a fixed step would meet the same columns again.
__device__ __forceinline__ std::int64_t sample_place(std::int64_t count, int size, int run,
                                                     int at) {
  const std::int64_t stride = count / (size / run);
  const unsigned number = static_cast<unsigned>(at / run);
  const auto room = static_cast<unsigned>(stride - run < INT32_MAX ? stride - run : INT32_MAX);
  return number * stride + __umulhi(number * 0x9E3779B9u, room) + at % run;
}

template <typename Real>
struct SampleParams {
  SearchParams<Real> search;
  KeyOf<Real>* keys;  // [kinds][kSampleKeys]
};

template <typename Real>
__global__ void __launch_bounds__(kThreads)
    take_sample(const __grid_constant__ SampleParams<Real> p) {
  using Key = KeyOf<Real>;
  const int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const int kind = static_cast<int>(blockIdx.y);
  const How how = p.search.how;
  const std::int64_t place =
      sample_place(p.search.keys.count, kSampleKeys<Key>, run_length(how), at);
  p.keys[kind * kSampleKeys<Key> + at] = key_at(p.search.keys, how, kind, place);
}

template <typename Real>
__global__ void __launch_bounds__(kSampleThreads, 1)
    find_bracket(const __grid_constant__ SampleParams<Real> sample) {
  const SearchParams<Real>& p = sample.search;
  using Key = KeyOf<Real>;
  constexpr int kBits = static_cast<int>(sizeof(Key)) * 8 - 1;
  constexpr auto kSize = static_cast<double>(kSampleKeys<Key>);
  const int entry = static_cast<int>(blockIdx.x);
  const Entry wanted = p.entry[entry];
  Key keys[kEach<Key>];
  unsigned zeros = 0;
#pragma unroll
  for (int i = 0; i < kEach<Key>; ++i) {
    const int at = i * kSampleThreads + static_cast<int>(threadIdx.x);
    keys[i] = sample.keys[wanted.kind * kSampleKeys<Key> + at];
    zeros += keys[i] == 0 ? 1u : 0u;
  }
  int turn = 0;
  zeros = block_count(zeros, turn ^= 1);
  const double share = wanted.share >= 0
                           ? wanted.share * (1 - zeros / kSize)
                           : static_cast<double>(wanted.wanted) / static_cast<double>(p.keys.count);
  const double error = kSampleError<Key>;
  const bool is_high = blockIdx.y == 1;
  // From the largest, 1-based; beyond the sample's ends the bracket is open.
  const bool is_open = is_high ? share <= error : share >= 1 - error;
  const double at = is_open ? 0 : (is_high ? share - error : share + error) * kSize;
  const auto rank = static_cast<unsigned>(at) + 1;
  Key found = 0;
#pragma unroll 1
  for (int bit = kBits - 1; bit >= 0; --bit) {
    const Key least = found | static_cast<Key>(Key{1} << bit);
    unsigned reached = 0;
#pragma unroll
    for (int i = 0; i < kEach<Key>; ++i) reached += keys[i] >= least ? 1u : 0u;
    if (block_count(reached, turn ^= 1) >= rank) found = least;
  }
  if (threadIdx.x != 0) return;
  Bracket& bracket = p.room.brackets[entry];
  if (is_high) {
    bracket.high = is_open ? static_cast<Key>(~Unsigned<Key>{0} >> 1) : found;
  } else {
    bracket.low = is_open ? 0 : found;
  }
}

}  // namespace

template <typename Real>
void guess_brackets(const Stream& stream, const SearchParams<Real>& params) {
  using Key = KeyOf<Real>;
  const int kinds = params.keys.kinds;
  const DeviceArray<Key> keys(stream, static_cast<std::size_t>(kinds) * kSampleKeys<Key>);
  const SampleParams<Real> sample{params, keys.data()};
  launch(stream, take_sample<Real>, {kSampleKeys<Key> / kThreads, kinds}, kThreads, sample);
  launch(stream, find_bracket<Real>, {params.entries, 2}, kSampleThreads, sample);
}

template void guess_brackets(const Stream&, const SearchParams<float>&);
template void guess_brackets(const Stream&, const SearchParams<double>&);

}  // namespace pymerge::cuda
