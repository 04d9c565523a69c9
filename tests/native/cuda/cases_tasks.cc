// The kernels of task vectors under masks, for the sanitizers.
#include "cases.h"
#include "mask/cuda.h"
#include "masked_sum/cuda.h"
#include "overlap/cuda.h"
#include "row_divergence/cuda.h"
#include "task_merge/cuda.h"

namespace pymerge::cuda::test {
namespace {

Rule drawn(std::int64_t row) {
  Rule rule;
  rule.kind = row == 0 ? Rule::Kind::kBernoulli : Rule::Kind::kRanked;
  rule.keep = 30000;
  rule.key = 7;
  rule.density = 0.5;
  rule.epsilon = 0.1;
  rule.row = row;
  return rule;
}

Rule cut(Rule::Kind kind) {
  Rule rule;
  rule.kind = kind;
  rule.outer = {1 << 20, 100};
  return rule;
}

}  // namespace

void run_tasks() {
  const Stream stream(0, "test");
  for_tensors(3, [&](Tensors& tensors, std::int64_t length) {
    if (length == 0) return;
    const std::int64_t row = length % 3 == 0 ? length / 3 : length;
    const Rule::Kind band = Rule::Kind::kBand;
    const std::vector<std::vector<Rule>> sets = {
        {Rule{}, cut(band), cut(band)},
        {drawn(0), Rule{}, drawn(0)},
        {drawn(row), cut(band), drawn(row)},
        std::vector<Rule>(3, cut(Rule::Kind::kSpread)),
    };
    const Inputs inputs = tensors.inputs(3, true);
    const std::vector<double> weights(3, 0.5);
    for (const std::vector<Rule>& rules : sets) {
      for (const Norm norm : {Norm::kL1, Norm::kMax}) masked_sum(stream, inputs, rules, norm);
      overlap(stream, inputs, rules);
      for (const Consensus how : {Consensus::kNone, Consensus::kSum}) {
        task_merge(stream, inputs, {rules, weights, how, weights, true, 1, {}, {}, false},
                   tensors.out());
      }
    }
    row_divergence(stream, tensors.inputs(1, true), {length / row, row, false});
    std::vector<std::int8_t> kept(static_cast<std::size_t>(length));
    for (const Rule& rule : {drawn(0), drawn(row), cut(band)}) {
      mask(stream, tensors.inputs(1, false), rule, kept.data());
    }
  });
}

}  // namespace pymerge::cuda::test
