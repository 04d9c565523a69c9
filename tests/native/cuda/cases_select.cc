// The kernels that select and count, for the sanitizers.
#include "cases.h"
#include "select/cuda/select.h"

namespace pymerge::cuda::test {

void run_select() {
  const Stream stream(0, "test");
  for_tensors(3, [&](Tensors& tensors, std::int64_t length) {
    const std::vector<Wanted> wanted = {{0, length / 2}, {0, length / 3}, {2, length}, {1, 0}};
    for (const bool base : {false, true}) {
      const Ordered ordered{tensors.inputs(3, base), {}, -1};
      select(stream, ordered, wanted);
      // A bracket that misses, and one that holds too much.
      select(stream, ordered, wanted, ForcedBracket{3, 5, 7});
      select(stream, ordered, wanted, ForcedBracket{0, INT32_MAX, 7});
      key_counts(stream, ordered.inputs, {0, 1 << 20, 5}, 15, 300, true);
      key_sample(stream, ordered.inputs, 100);
    }
    select(stream, {tensors.inputs(3, false), {}, 0.3}, {{0, 0}});
    if (length == 0) return;
    const LineNumbers factors{{0.5}, {1, length}};
    select(stream, {tensors.inputs(3, true), factors, -1}, wanted);
  });
  // Large enough for a sample.
  const std::int64_t length = (1 << 18) + 77;
  const Tensors large(DType::kBF16, length, 1);
  select(stream, {large.inputs(1, true), {}, -1}, {{0, length / 3}});
}

}  // namespace pymerge::cuda::test
