// The jobs behind requests, made from plain arguments; shared by the bind_*.cc files of _core.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/drawn.h"
#include "common/inputs.h"
#include "convert.h"
#include "fusion/job.h"
#include "gram/job.h"
#include "io/tensor_view.h"
#include "masked_sum/job.h"
#include "near_swap/job.h"
#include "overlap/job.h"
#include "row_divergence/job.h"
#include "select/counts.h"
#include "select/job.h"
#include "task_merge/job.h"
#include "weighted_sum/job.h"

namespace pymerge::bindings {

// A tensor view together with the Python object that owns its memory (none for mapped files).
struct Tensor {
  TensorView view;
  py::object owner;
};

// Checks that all tensors are of one length and mergeable; base may be null.
Inputs to_inputs(const std::vector<const Tensor*>& tensors, const Tensor* base);

// The jobs behind the requests of pymerge/ops.py, made from plain arguments. With a store, the
// masks that a masked_sum draws are used again by the task_merge of the same tensors.
std::shared_ptr<GramMeasure> make_gram(const std::vector<const Tensor*>& tensors,
                                       const Tensor* base, const std::string& compute);
std::shared_ptr<SelectMeasure> make_select(const std::vector<const Tensor*>& tensors,
                                           const Tensor* base, const std::string& compute,
                                           const std::vector<std::int64_t>& counts,
                                           std::int64_t gathered = SelectMeasure::kGathered);
std::shared_ptr<KeySampleMeasure> make_key_sample(const std::vector<const Tensor*>& tensors,
                                                  const Tensor* base, const std::string& compute,
                                                  std::int64_t apart);
std::shared_ptr<KeyCountsMeasure> make_key_counts(const std::vector<const Tensor*>& tensors,
                                                  const Tensor* base, const std::string& compute,
                                                  std::vector<std::uint64_t> lows, int shift,
                                                  std::int64_t buckets, bool open);
// `factors`: a flat buffer of [count] doubles.
std::shared_ptr<SelectMeasure> make_select_spread(const std::vector<const Tensor*>& tensors,
                                                  const std::string& compute, double share,
                                                  std::int64_t gathered = SelectMeasure::kGathered);
std::shared_ptr<SelectMeasure> make_select_lines(const std::vector<const Tensor*>& tensors,
                                                 const Tensor* base, const std::string& compute,
                                                 const std::vector<std::int64_t>& counts,
                                                 const py::buffer& factors, const LinesTuple& lines,
                                                 std::int64_t gathered = SelectMeasure::kGathered);
std::shared_ptr<RowDivergenceMeasure> make_row_divergence(const std::vector<const Tensor*>& tensors,
                                                          const Tensor& base,
                                                          const std::string& compute,
                                                          const LinesTuple& lines);
std::shared_ptr<MaskedSumMeasure> make_masked_sum(const std::vector<const Tensor*>& tensors,
                                                  const Tensor* base, const std::string& compute,
                                                  const std::vector<py::tuple>& rules,
                                                  const std::string& norm,
                                                  MaskStore* store = nullptr);
std::shared_ptr<OverlapMeasure> make_overlap(const std::vector<const Tensor*>& tensors,
                                             const Tensor* base, const std::string& compute,
                                             const std::vector<py::tuple>& rules);
std::shared_ptr<Combine> make_weighted_sum(const std::vector<const Tensor*>& tensors,
                                           const std::string& compute, const std::string& out_dtype,
                                           std::vector<double> coefficients);
std::shared_ptr<GramLinesMeasure> make_gram_lines(const std::vector<const Tensor*>& tensors,
                                                  const Tensor* base, const std::string& compute,
                                                  const LinesTuple& lines);
// `coefficients`: a flat buffer of [n][count] doubles.
std::shared_ptr<Combine> make_weighted_sum_lines(const std::vector<const Tensor*>& tensors,
                                                 const Tensor* base, const std::string& compute,
                                                 const std::string& out_dtype,
                                                 const py::buffer& coefficients,
                                                 const LinesTuple& lines);
std::shared_ptr<Combine> make_task_merge(
    const std::vector<const Tensor*>& tensors, const Tensor& base, const std::string& compute,
    const std::string& out_dtype, const std::vector<py::tuple>& rules,
    std::vector<double> coefficients, const std::string& consensus, std::vector<double> weights,
    bool normalize, double scale, std::vector<double> votes, std::vector<double> alone, bool pick,
    MaskStore* store = nullptr);
std::shared_ptr<Combine> make_near_swap(const std::vector<const Tensor*>& tensors,
                                        const Tensor& base, const std::string& compute,
                                        const std::string& out_dtype, double t);
std::shared_ptr<Combine> make_fusion(const std::vector<const Tensor*>& tensors, const Tensor& base,
                                     const std::string& compute, const std::string& out_dtype,
                                     const py::buffer& factors, const LinesTuple& lines,
                                     double threshold);

// Answers, before the exact addition of tile partials that all backends share: a list of rows.
py::object gram_answer(const GramMeasure& job);
py::object gram_lines_answer(const GramLinesMeasure& job);
py::object select_answer(const SelectMeasure& job);
py::object key_sample_answer(const KeySampleMeasure& job);
py::object key_counts_answer(const KeyCountsMeasure& job);
py::object row_divergence_answer(const RowDivergenceMeasure& job);
py::object masked_sum_answer(const MaskedSumMeasure& job);
py::object overlap_answer(const OverlapMeasure& job);

// One per subject; module.cc is their table of contents.
void bind_runtime(py::module_& module);
void bind_io(py::module_& module);
void bind_tensors(py::module_& module);
void bind_ops(py::module_& module);
void bind_engine(py::module_& module);

}  // namespace pymerge::bindings
