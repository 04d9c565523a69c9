#include "jobs.h"

#include <utility>

#include "core/error.h"

namespace pymerge::bindings {

Inputs to_inputs(const std::vector<const Tensor*>& tensors, const Tensor* base) {
  if (tensors.empty()) throw Error(ErrorCode::kInternal, "a kernel was called without tensors");
  const std::int64_t count = tensors[0]->view.count;
  const auto check = [&](const TensorView& view) {
    check_mergeable(view.dtype, view.count, count);
  };
  std::vector<TensorView> views;
  for (const Tensor* tensor : tensors) {
    check(tensor->view);
    views.push_back(tensor->view);
  }
  if (base != nullptr) check(base->view);
  return {std::move(views), base == nullptr ? TensorView{} : base->view};
}

std::shared_ptr<GramMeasure> make_gram(const std::vector<const Tensor*>& tensors,
                                       const Tensor* base, const std::string& compute) {
  return std::make_shared<GramMeasure>(to_inputs(tensors, base), to_compute(compute));
}

namespace {

// The inputs of a select, a tensor that is listed several times in a row only once.
struct Selection {
  Inputs inputs;
  std::vector<SelectMeasure::Wanted> wanted;
};

Selection to_selection(const std::vector<const Tensor*>& tensors, const Tensor* base,
                       const std::vector<std::int64_t>& counts) {
  std::vector<const Tensor*> different;
  std::vector<SelectMeasure::Wanted> wanted;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (i == 0 || tensors[i]->view.identity() != tensors[i - 1]->view.identity()) {
      different.push_back(tensors[i]);
    }
    wanted.push_back({static_cast<int>(different.size()) - 1, counts.at(i)});
  }
  return {to_inputs(different, base), std::move(wanted)};
}

}  // namespace

std::shared_ptr<SelectMeasure> make_select(const std::vector<const Tensor*>& tensors,
                                           const Tensor* base, const std::string& compute,
                                           const std::vector<std::int64_t>& counts,
                                           std::int64_t gathered) {
  Selection made = to_selection(tensors, base, counts);
  return std::make_shared<SelectMeasure>(std::move(made.inputs), to_compute(compute), made.wanted,
                                         gathered);
}

std::shared_ptr<SelectMeasure> make_select_spread(const std::vector<const Tensor*>& tensors,
                                                  const std::string& compute, double share,
                                                  std::int64_t gathered) {
  if (!(share >= 0 && share <= 1)) throw Error(ErrorCode::kInternal, "a share is from 0 to 1");
  const std::vector<SelectMeasure::Wanted> wanted = {{0, 0, share}};
  return std::make_shared<SelectMeasure>(to_inputs(tensors, nullptr), to_compute(compute), wanted,
                                         gathered);
}

std::shared_ptr<SelectMeasure> make_select_lines(const std::vector<const Tensor*>& tensors,
                                                 const Tensor* base, const std::string& compute,
                                                 const std::vector<std::int64_t>& counts,
                                                 const py::buffer& factors, const LinesTuple& lines,
                                                 std::int64_t gathered) {
  Selection made = to_selection(tensors, base, counts);
  const Lines cut = to_lines(made.inputs.count(), lines);
  return std::make_shared<SelectMeasure>(std::move(made.inputs), to_compute(compute), made.wanted,
                                         gathered,
                                         LineNumbers{to_numbers(factors, cut.count), cut});
}

std::shared_ptr<RowDivergenceMeasure> make_row_divergence(const std::vector<const Tensor*>& tensors,
                                                          const Tensor& base,
                                                          const std::string& compute,
                                                          const LinesTuple& lines) {
  Inputs inputs = to_inputs(tensors, &base);
  const Lines rows = to_lines(inputs.count(), lines);
  if (inputs.size() != 1 || rows.strided) {
    throw Error(ErrorCode::kInternal, "divergences are of one tensor's rows");
  }
  return std::make_shared<RowDivergenceMeasure>(std::move(inputs), to_compute(compute), rows);
}

std::shared_ptr<KeyCountsMeasure> make_key_counts(const std::vector<const Tensor*>& tensors,
                                                  const Tensor* base, const std::string& compute,
                                                  std::vector<std::uint64_t> lows, int shift,
                                                  std::int64_t buckets, bool open) {
  return std::make_shared<KeyCountsMeasure>(to_inputs(tensors, base), to_compute(compute),
                                            std::move(lows), shift, buckets, open);
}

std::shared_ptr<KeySampleMeasure> make_key_sample(const std::vector<const Tensor*>& tensors,
                                                  const Tensor* base, const std::string& compute,
                                                  std::int64_t apart) {
  return std::make_shared<KeySampleMeasure>(to_inputs(tensors, base), to_compute(compute), apart);
}

std::shared_ptr<MaskedSumMeasure> make_masked_sum(const std::vector<const Tensor*>& tensors,
                                                  const Tensor* base, const std::string& compute,
                                                  const std::vector<py::tuple>& rules,
                                                  const std::string& norm, MaskStore* store) {
  Inputs inputs = to_inputs(tensors, base);
  std::vector<Rule> made = to_rules(rules);
  KeptMasks masks = store == nullptr ? KeptMasks() : store->reserve(inputs, made);
  return std::make_shared<MaskedSumMeasure>(std::move(inputs), to_compute(compute), std::move(made),
                                            to_norm(norm), std::move(masks));
}

std::shared_ptr<OverlapMeasure> make_overlap(const std::vector<const Tensor*>& tensors,
                                             const Tensor* base, const std::string& compute,
                                             const std::vector<py::tuple>& rules) {
  return std::make_shared<OverlapMeasure>(to_inputs(tensors, base), to_compute(compute),
                                          to_rules(rules));
}

std::shared_ptr<Combine> make_weighted_sum(const std::vector<const Tensor*>& tensors,
                                           const std::string& compute, const std::string& out_dtype,
                                           std::vector<double> coefficients) {
  Inputs inputs = to_inputs(tensors, nullptr);
  const Lines whole{1, inputs.count()};
  return std::make_shared<WeightedSumCombine>(std::move(inputs), to_compute(compute),
                                              to_dtype(out_dtype), std::move(coefficients), whole);
}

std::shared_ptr<GramLinesMeasure> make_gram_lines(const std::vector<const Tensor*>& tensors,
                                                  const Tensor* base, const std::string& compute,
                                                  const LinesTuple& lines) {
  Inputs inputs = to_inputs(tensors, base);
  const Lines made = to_lines(inputs.count(), lines);
  return std::make_shared<GramLinesMeasure>(std::move(inputs), to_compute(compute), made);
}

std::shared_ptr<Combine> make_weighted_sum_lines(const std::vector<const Tensor*>& tensors,
                                                 const Tensor* base, const std::string& compute,
                                                 const std::string& out_dtype,
                                                 const py::buffer& coefficients,
                                                 const LinesTuple& lines) {
  Inputs inputs = to_inputs(tensors, base);
  const Lines made = to_lines(inputs.count(), lines);
  std::vector<double> numbers = to_numbers(coefficients, made.count * inputs.size());
  return std::make_shared<WeightedSumCombine>(std::move(inputs), to_compute(compute),
                                              to_dtype(out_dtype), std::move(numbers), made);
}

std::shared_ptr<Combine> make_task_merge(const std::vector<const Tensor*>& tensors,
                                         const Tensor& base, const std::string& compute,
                                         const std::string& out_dtype,
                                         const std::vector<py::tuple>& rules,
                                         std::vector<double> coefficients,
                                         const std::string& consensus, std::vector<double> weights,
                                         bool normalize, double scale, std::vector<double> votes,
                                         std::vector<double> alone, bool pick, MaskStore* store) {
  Inputs inputs = to_inputs(tensors, &base);
  std::vector<Rule> made = to_rules(rules);
  KeptMasks masks = store == nullptr ? KeptMasks() : store->take(inputs, made);
  return std::make_shared<TaskMergeCombine>(
      std::move(inputs), to_compute(compute), to_dtype(out_dtype),
      TaskMergeNumbers{std::move(made), std::move(coefficients), to_consensus(consensus),
                       std::move(weights), normalize, scale, std::move(votes), std::move(alone),
                       pick},
      std::move(masks));
}

std::shared_ptr<Combine> make_near_swap(const std::vector<const Tensor*>& tensors,
                                        const Tensor& base, const std::string& compute,
                                        const std::string& out_dtype, double t) {
  return std::make_shared<NearSwapCombine>(to_inputs(tensors, &base), to_compute(compute),
                                           to_dtype(out_dtype), t);
}

std::shared_ptr<Combine> make_fusion(const std::vector<const Tensor*>& tensors, const Tensor& base,
                                     const std::string& compute, const std::string& out_dtype,
                                     const py::buffer& factors, const LinesTuple& lines,
                                     double threshold) {
  Inputs inputs = to_inputs(tensors, &base);
  const Lines cut = to_lines(inputs.count(), lines);
  return std::make_shared<FusionCombine>(
      std::move(inputs), to_compute(compute), to_dtype(out_dtype),
      LineNumbers{to_numbers(factors, cut.count), cut}, threshold);
}

py::object gram_answer(const GramMeasure& job) {
  return to_rows(job.partials(), static_cast<std::size_t>(job.pairs()));
}

py::object gram_lines_answer(const GramLinesMeasure& job) { return to_bytes(job.sums()); }

py::object row_divergence_answer(const RowDivergenceMeasure& job) {
  return to_bytes(job.divergences());
}

py::object select_answer(const SelectMeasure& job) { return to_pairs(job.cuts()); }

py::object key_counts_answer(const KeyCountsMeasure& job) { return to_bytes(job.counts()); }

py::object key_sample_answer(const KeySampleMeasure& job) { return to_bytes(job.keys()); }

py::object masked_sum_answer(const MaskedSumMeasure& job) {
  // [tiles * n] rows of (total, kept, count), tile by tile.
  py::list rows;
  for (const MaskedTotals& part : job.partials()) {
    rows.append(py::make_tuple(part.total, part.kept, part.count));
  }
  return rows;
}

py::object overlap_answer(const OverlapMeasure& job) {
  // [tiles * n] rows of (alone, shared), tile by tile.
  py::list rows;
  for (const OverlapCounts& part : job.partials()) {
    rows.append(py::make_tuple(part.alone, part.shared));
  }
  return rows;
}

}  // namespace pymerge::bindings
