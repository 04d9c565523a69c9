// task_merge: which kernel, and its numbers. Reads every input once, writes the output once.
#include <optional>

#include "common/cuda/ranks.h"
#include "task_merge/cuda.h"
#include "task_merge/cuda/params.cuh"

namespace pymerge::cuda {
namespace {

// By what the sum is multiplied where those models take part whose bits are set in `taking`: the
// spec's numbers in the spec's order.
template <typename Real>
Real factor_of(const std::vector<TaskPart<Real>>& parts, const TaskMergeNumbers& numbers,
               unsigned taking) {
  Real divisor = 0;
  Real single = 0;
  int members = 0;
  for (std::size_t model = 0; model < parts.size(); ++model) {
    if ((taking >> model & 1u) == 0) continue;
    ++members;
    divisor = divisor + parts[model].weight;
    single = single + parts[model].alone;
  }
  if (!numbers.alone.empty() && members == 1) return single;
  const auto scale = static_cast<Real>(numbers.scale);
  return numbers.normalize ? scale / (divisor == 0 ? Real{1} : divisor) : scale;
}

template <typename Real>
std::vector<TaskPart<Real>> to_parts(const TaskMergeNumbers& numbers, const RankMasks& masks) {
  std::vector<TaskPart<Real>> parts;
  for (std::size_t model = 0; model < numbers.rules.size(); ++model) {
    const auto number = [&](const std::vector<double>& given) {
      return given.empty() ? Real{0} : static_cast<Real>(given[model]);
    };
    const std::vector<double>& votes = numbers.votes.empty() ? numbers.coefficients : numbers.votes;
    parts.push_back({to_device<Real>(numbers.rules[model], masks[model]),
                     number(numbers.coefficients), number(votes), number(numbers.weights),
                     number(numbers.alone)});
  }
  return parts;
}

// Calls body(params, bytes of shared memory).
template <typename Real, typename Body>
void with_params(const Stream& stream, const Inputs& inputs, const TaskMergeNumbers& numbers,
                 const Output& out, const Body& body) {
  const RankMasks masks(stream, inputs, numbers.rules);
  const std::vector<TaskPart<Real>> parts = to_parts<Real>(numbers, masks);
  const HostTable<Source> tensors(stream, sources_of(inputs));
  const HostTable<TaskPart<Real>> table(stream, parts);
  TaskParams<Real> params{deal_units(inputs.count, is_aligned(inputs) && is_aligned(out.data),
                                     any_drawn(numbers.rules)),
                          out,
                          inputs.size(),
                          any_spread(numbers.rules),
                          numbers.normalize,
                          !numbers.alone.empty(),
                          numbers.pick,
                          numbers.consensus,
                          static_cast<Real>(numbers.scale),
                          source_of(inputs.base),
                          tensors.get(),
                          table.get(),
                          {}};
  if (inputs.size() <= kTabled) {
    for (unsigned taking = 0; taking < 1u << inputs.size(); ++taking) {
      params.factors[taking] = factor_of(parts, numbers, taking);
    }
  }
  body(params, drawn_bytes(numbers.rules));
}

// Of which dtype all are, if of one.
std::optional<DType> common_dtype(const Inputs& inputs) {
  const DType dtype = inputs.base.dtype;
  const bool common = inputs.compute == Compute::kFloat32 &&
                      std::all_of(inputs.tensors.begin(), inputs.tensors.end(),
                                  [=](const Operand& tensor) { return tensor.dtype == dtype; });
  return common ? std::optional(dtype) : std::nullopt;
}

}  // namespace

void task_merge(const Stream& stream, const Inputs& inputs, const TaskMergeNumbers& numbers,
                const Output& out) {
  if (inputs.compute == Compute::kFloat64) {
    return with_params<double>(stream, inputs, numbers, out, [&](const auto& params, auto shared) {
      task_merge_any(stream, params, shared);
    });
  }
  const bool usual = (numbers.consensus == Consensus::kNone ||
                      (numbers.consensus == Consensus::kSum && !numbers.pick)) &&
                     !any_spread(numbers.rules);
  const std::optional<DType> dtype = common_dtype(inputs);
  with_params<float>(stream, inputs, numbers, out, [&](const auto& params, auto shared) {
    if (usual && dtype == DType::kBF16 && task_merge_bf16(stream, params, shared)) return;
    if (usual && dtype == DType::kF16 && task_merge_f16(stream, params, shared)) return;
    task_merge_any(stream, params, shared);
  });
}

}  // namespace pymerge::cuda
