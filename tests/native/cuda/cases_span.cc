// The kernels on the span of their inputs, and the pointwise ones, for the sanitizers.
#include "cases.h"
#include "fusion/cuda.h"
#include "gram/cuda.h"
#include "near_swap/cuda.h"
#include "weighted_sum/cuda.h"

namespace pymerge::cuda::test {

void run_span() {
  const Stream stream(0, "test");
  for_tensors(5, [&](Tensors& tensors, std::int64_t length) {
    for (const int models : {2, 3, 5}) {
      for (const bool base : {false, true}) {
        const Inputs inputs = tensors.inputs(models, base);
        gram(stream, inputs);
        if (length == 0) continue;
        const std::int64_t width = length % 3 == 0 ? 3 : 1;
        for (const Lines& lines :
             {Lines{width, length / width}, Lines{length / width, width, true}}) {
          gram_lines(stream, inputs, lines);
          const auto size = static_cast<std::size_t>(lines.count * models);
          weighted_sum_lines(stream, inputs, std::vector<double>(size, 0.5), lines, tensors.out());
        }
      }
      const std::vector<double> coefficients(static_cast<std::size_t>(models), 0.5);
      weighted_sum(stream, tensors.inputs(models, false), coefficients, tensors.out());
    }
  });
}

void run_pointwise() {
  const Stream stream(0, "test");
  for_tensors(1, [&](Tensors& tensors, std::int64_t length) {
    const Inputs inputs = tensors.inputs(1, true);
    near_swap(stream, inputs, 0.01, tensors.out());
    if (length > 0) fusion(stream, inputs, {2.0}, {1, length}, 0.5, tensors.out());
  });
}

}  // namespace pymerge::cuda::test
