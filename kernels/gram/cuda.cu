// gram over whole tensors: a partial for each canonical block and pair. Reads every input once,
// those of more than three again from the second-level cache.
#include "common/lines.h"
#include "gram/cuda.h"
#include "gram/pairs.cuh"

namespace pymerge::cuda {
namespace {

constexpr int kGramThreads = 128;

template <typename Format, int models, typename Lane>
__global__ void __launch_bounds__(kGramThreads, 2)
    gram_blocks(const __grid_constant__ GramParams p) {
  // A region's parts side by side, so that they meet in the cache.
  const Pairs<models> pairs(p, static_cast<int>(blockIdx.x) % p.tasks);
  const std::int64_t block =
      (static_cast<std::int64_t>(blockIdx.x) / p.tasks * kGramThreads + threadIdx.x) / kParts;
  Lane sums[Pairs<models>::kPairs][kVector] = {};
  const bool whole = p.by_vectors && (block + 1) * kBlock <= p.count;
  add_block<Format, models>(p, pairs, whole, block * kBlock, 0, p.count, sums);
  const std::int64_t blocks = (p.count + kBlock - 1) / kBlock;
#pragma unroll
  for (int pair = 0; pair < Pairs<models>::kPairs; ++pair) {
    const double sum = add_lanes(sums[pair]);
    if (part_index() == 0 && block < blocks && pairs.has_pair(pair)) {
      p.sums[pairs.place(pair) * blocks + block] = sum;
    }
  }
}

}  // namespace

std::vector<double> gram(const Stream& stream, const Inputs& inputs) {
  const int pairs = inputs.size() * (inputs.size() + 1) / 2;
  const std::int64_t blocks = block_count(inputs.count);
  const DeviceArray<double> sums(stream, static_cast<std::size_t>(blocks * pairs));
  with_gram<3>(inputs, is_narrow(inputs), [&](auto format, auto models, auto lane) {
    constexpr int kModels = decltype(models)::value;
    const int tasks = count_tasks<kModels>(inputs.size());
    const HostTable<Source> tensors(stream, sources_of(inputs));
    launch(stream, gram_blocks<decltype(format), kModels, decltype(lane)>,
           {divide_up(blocks * kParts, kGramThreads) * tasks}, kGramThreads,
           gram_params(inputs, tensors, tasks, Lines{}, sums.data()));
  });
  return tile_sums(stream, sums, pairs, inputs.count);
}

}  // namespace pymerge::cuda
