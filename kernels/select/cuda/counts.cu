// Histograms of keys, and samples of them. Real magnitudes crowd in few buckets, where whole
// devices would queue: a block counts in its own memory, in which a bucket has one place, that of
// its low bits; the few that find theirs taken go to the device's memory one by one.
#include <array>

#include "common/cuda/pointwise.cuh"
#include "select/cuda/passes.cuh"

namespace pymerge::cuda {
namespace {

constexpr int kPlaces = 1 << 12;
constexpr unsigned kFree = ~0u;
// Blocks that share a tensor, each with a table to add in the end.
constexpr int kCountingBlocks = 512;

struct CountedRow {
  int kind;
  int shift;
  std::int64_t low;
};

template <typename Real>
struct CountParams {
  KeyParams<Real> keys;
  Table<CountedRow> rows;
  std::int64_t buckets;
  bool open;
  unsigned long long* counts;
};

struct Counter {
  unsigned bucket[kPlaces];
  unsigned count[kPlaces];
};

__device__ __forceinline__ void count_one(Counter& counter, unsigned bucket,
                                          unsigned long long* counts) {
  const unsigned place = bucket % kPlaces;
  unsigned owner = atomicAdd(&counter.bucket[place], 0u);
  if (owner == kFree) {
    owner = atomicCAS(&counter.bucket[place], kFree, bucket);
    if (owner == kFree) owner = bucket;
  }
  if (owner == bucket) {
    atomicAdd(&counter.count[place], 1u);
  } else {
    atomicAdd(&counts[bucket], 1ull);
  }
}

template <typename Format, How how, int n, typename Params>
__device__ __forceinline__ void count_run(const Params& p, const CountedRow& row, Counter& counter,
                                          unsigned long long* counts, std::int64_t at) {
  using Key = KeyOf<typename Format::Real>;
  KeyReader<Format, how, n> reader;
  reader.load_base(p.keys, at);
  reader.load(p.keys, row.kind, at);
  Key keys[n];
  reader.get(p.keys, at, keys);
#pragma unroll
  for (int i = 0; i < n; ++i) {
    std::int64_t bucket = (keys[i] - row.low) >> row.shift;
    if (keys[i] < row.low || (bucket >= p.buckets && !p.open)) continue;
    if (bucket >= p.buckets) bucket = p.buckets - 1;
    count_one(counter, static_cast<unsigned>(bucket), counts);
  }
}

template <typename Format, How how>
__global__ void __launch_bounds__(kThreads)
    count_all(const __grid_constant__ CountParams<typename Format::Real> p) {
  __shared__ Counter counter;
  const CountedRow row = p.rows[static_cast<int>(blockIdx.y)];
  unsigned long long* const counts = p.counts + blockIdx.y * p.buckets;
  for (int i = static_cast<int>(threadIdx.x); i < kPlaces; i += kThreads) {
    counter.bucket[i] = kFree;
    counter.count[i] = 0;
  }
  __syncthreads();
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * kThreads;
  const std::int64_t vectors = p.keys.by_vectors ? p.keys.count / kVector : 0;
  for (std::int64_t i = thread; i < vectors; i += threads) {
    count_run<Format, how, kVector>(p, row, counter, counts, i * kVector);
  }
  for (std::int64_t at = vectors * kVector + thread; at < p.keys.count; at += threads) {
    count_run<Format, how, 1>(p, row, counter, counts, at);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kPlaces; i += kThreads) {
    if (counter.count[i] != 0) atomicAdd(&counts[counter.bucket[i]], 0ull + counter.count[i]);
  }
}

constexpr int kRun = 64;

template <typename Real>
struct SampleParams {
  KeyParams<Real> keys;
  std::int64_t apart;
  std::int64_t size;  // keys of a tensor
  unsigned long long* out;
};

template <typename Real>
__global__ void __launch_bounds__(kThreads)
    sample_keys(const __grid_constant__ SampleParams<Real> p) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= p.size) return;
  const std::int64_t run = at / kRun;
  const std::int64_t place = run * p.apart + run * 40503 % (p.apart - kRun) + at % kRun;
  const int kind = static_cast<int>(blockIdx.y);
  p.out[kind * p.size + at] =
      static_cast<unsigned long long>(key_at(p.keys, How::kDelta, kind, place));
}

template <typename Body>
auto with_real(const Inputs& inputs, const Body& body) {
  return inputs.compute == Compute::kFloat64 ? body(double{}) : body(float{});
}

}  // namespace

template <typename Real>
DeviceArray<unsigned long long> count_keys(const Stream& stream, const Inputs& inputs,
                                           const KeyParams<Real>& keys, How how,
                                           const Buckets& buckets) {
  std::vector<CountedRow> rows;
  for (std::size_t i = 0; i < buckets.kinds.size(); ++i) {
    rows.push_back({buckets.kinds[i], buckets.shifts[i], buckets.lows[i]});
  }
  const HostTable<CountedRow> table(stream, rows);
  DeviceArray<unsigned long long> counts(stream,
                                         rows.size() * static_cast<std::size_t>(buckets.count));
  counts.clear();
  const CountParams<Real> params{keys, table.get(), buckets.count, buckets.open, counts.data()};
  const std::int64_t blocks = std::min<std::int64_t>(
      kCountingBlocks, divide_up(keys.count, std::int64_t{kThreads} * kVector));
  const Grid grid{blocks, static_cast<std::int64_t>(rows.size())};
  if (how == How::kSpread) {
    launch(stream, count_all<Mixed<Real>, How::kSpread>, grid, kThreads, params);
  } else if (how == How::kLines) {
    launch(stream, count_all<Mixed<Real>, How::kLines>, grid, kThreads, params);
  } else {
    with_format(inputs, [&](auto format) {
      using Format = decltype(format);
      if constexpr (std::is_same_v<typename Format::Real, Real>) {
        launch(stream, count_all<Format, How::kDelta>, grid, kThreads, params);
      }
    });
  }
  return counts;
}

template DeviceArray<unsigned long long> count_keys(const Stream&, const Inputs&,
                                                    const KeyParams<float>&, How, const Buckets&);
template DeviceArray<unsigned long long> count_keys(const Stream&, const Inputs&,
                                                    const KeyParams<double>&, How, const Buckets&);

std::vector<std::uint64_t> key_counts(const Stream& stream, const Inputs& inputs,
                                      const std::vector<std::uint64_t>& lows, int shift,
                                      std::int64_t buckets, bool open) {
  return with_real(inputs, [&](auto real) {
    const Scores<decltype(real)> scores(stream, {inputs, {}, -1});
    Buckets wanted{{}, {}, {}, buckets + (open ? 1 : 0), open};
    for (std::size_t i = 0; i < lows.size(); ++i) {
      wanted.kinds.push_back(static_cast<int>(i));
      // What no key reaches is as good as the greatest number.
      wanted.lows.push_back(static_cast<std::int64_t>(std::min<std::uint64_t>(lows[i], INT64_MAX)));
      wanted.shifts.push_back(shift);
    }
    const auto counts = count_keys(stream, inputs, scores.params, scores.how, wanted).to_host();
    return std::vector<std::uint64_t>(counts.begin(), counts.end());
  });
}

std::vector<std::uint64_t> key_sample(const Stream& stream, const Inputs& inputs,
                                      std::int64_t apart) {
  const std::int64_t runs = inputs.count == 0 ? 0 : std::max<std::int64_t>(1, inputs.count / apart);
  // Of fewer elements than a run, all.
  const std::int64_t size = runs == 1 ? std::min<std::int64_t>(kRun, inputs.count) : runs * kRun;
  return with_real(inputs, [&](auto real) {
    using Real = decltype(real);
    const Scores<Real> scores(stream, {inputs, {}, -1});
    const DeviceArray<unsigned long long> out(stream,
                                              static_cast<std::size_t>(size * inputs.size()));
    launch(stream, sample_keys<Real>, {divide_up(size, kThreads), inputs.size()}, kThreads,
           SampleParams<Real>{scores.params, apart, size, out.data()});
    const auto keys = out.to_host();
    return std::vector<std::uint64_t>(keys.begin(), keys.end());
  });
}

}  // namespace pymerge::cuda
