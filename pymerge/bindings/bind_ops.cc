// The requests of pymerge/ops.py on whole tensors in memory, each waited for.
#include "common/drawn.h"
#include "core/error.h"
#include "jobs.h"
#include "mask/mask.h"
#include "runtime/isa.h"

namespace pymerge::bindings {
namespace {

using Tensors = std::vector<const Tensor*>;

template <typename Job>
void run_released(const std::shared_ptr<Job>& job, int threads) {
  const py::gil_scoped_release release;
  run_job(job, threads);
}

std::byte* writable(const py::buffer& out, std::int64_t count, std::int64_t itemsize) {
  const py::buffer_info info = out.request(/*writable=*/true);
  if (info.itemsize != itemsize || info.size != count ||
      (info.ndim == 1 && info.size > 1 && info.strides[0] != info.itemsize) || info.ndim > 1) {
    throw Error(ErrorCode::kShape,
                "the output array must be flat, contiguous, and of the inputs' length");
  }
  return static_cast<std::byte*>(info.ptr);
}

std::int64_t run_combine(const std::shared_ptr<Combine>& combine, const py::buffer& out,
                         std::int64_t count, int threads) {
  std::byte* data = writable(out, count, item_size(combine->out_dtype()));
  const auto job = std::make_shared<CombineJob>(combine, count, data);
  run_released(job, threads);
  return job->nonfinite();
}

void fill_mask(const Tensor& delta, const py::tuple& rule, const std::string& compute,
               const py::buffer& out) {
  auto* mask = reinterpret_cast<std::int8_t*>(writable(out, delta.view.count, 1));
  const Rule made = to_rules({rule})[0];
  if (made.kind == Rule::Kind::kSpread) {
    throw Error(ErrorCode::kInternal, "one task vector alone has no spread");
  }
  const Compute type = to_compute(compute);
  const py::gil_scoped_release release;
  const MaskKernel& kernel = PYMERGE_SELECT_LEVEL(mask, active_isa());
  Scratch scratch;
  const Drawn drawn = take_drawn({made}, delta.view.count, true, scratch);
  kernel.fill(delta.view.operand(), made, drawn, type, {0, delta.view.count}, mask,
              scratch.take(kernel.scratch_bytes));
}

}  // namespace

void bind_ops(py::module_& module) {
  using py::arg;
  module.def(
      "gram",
      [](const Tensors& tensors, const Tensor* base, const std::string& compute, int threads) {
        const auto job = make_gram(tensors, base, compute);
        run_released(job, threads);
        return gram_answer(*job);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("threads"));
  module.def(
      "gram_lines",
      [](const Tensors& tensors, const Tensor* base, const std::string& compute,
         const LinesTuple& lines, int threads) {
        const auto job = make_gram_lines(tensors, base, compute, lines);
        run_released(job, threads);
        return gram_lines_answer(*job);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("lines"), arg("threads"),
      "The bytes of [lines, n (n + 1) / 2] doubles.");
  module.def(
      "weighted_sum_lines",
      [](const Tensors& tensors, const Tensor* base, const std::string& compute,
         const std::string& out_dtype, const py::buffer& coefficients, const LinesTuple& lines,
         const py::buffer& out, int threads) {
        const auto combine =
            make_weighted_sum_lines(tensors, base, compute, out_dtype, coefficients, lines);
        return run_combine(combine, out, tensors[0]->view.count, threads);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("out_dtype"), arg("coefficients"),
      arg("lines"), arg("out"), arg("threads"), "Returns how many stored values are not finite.");
  module.def(
      "select",
      [](const Tensors& tensors, const Tensor* base, const std::string& compute,
         const std::vector<std::int64_t>& counts, int threads) {
        const auto job = make_select(tensors, base, compute, counts);
        run_released(job, threads);
        return select_answer(*job);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("counts"), arg("threads"));
  module.def(
      "select_spread",
      [](const Tensors& tensors, const py::none&, const std::string& compute, double share,
         int threads) {
        const auto job = make_select_spread(tensors, compute, share);
        run_released(job, threads);
        return select_answer(*job);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("share"), arg("threads"));
  for (const bool open : {false, true}) {
    module.def(
        open ? "key_counts_open" : "key_counts",
        [open](const Tensors& tensors, const Tensor* base, const std::string& compute,
               std::vector<std::uint64_t> lows, int shift, std::int64_t buckets, int threads) {
          const auto job =
              make_key_counts(tensors, base, compute, std::move(lows), shift, buckets, open);
          run_released(job, threads);
          return key_counts_answer(*job);
        },
        arg("tensors"), arg("base"), arg("compute"), arg("lows"), arg("shift"), arg("buckets"),
        arg("threads"), "The bytes of [n, buckets] uint64; open, of [n, buckets + 1].");
  }
  module.def(
      "key_sample",
      [](const Tensors& tensors, const Tensor* base, const std::string& compute, std::int64_t apart,
         int threads) {
        const auto job = make_key_sample(tensors, base, compute, apart);
        run_released(job, threads);
        return key_sample_answer(*job);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("apart"), arg("threads"),
      "The bytes of [n, keys] uint64.");
  module.def(
      "select_lines",
      [](const Tensors& tensors, const Tensor* base, const std::string& compute,
         const std::vector<std::int64_t>& counts, const py::buffer& factors,
         const LinesTuple& lines, int threads) {
        const auto job = make_select_lines(tensors, base, compute, counts, factors, lines);
        run_released(job, threads);
        return select_answer(*job);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("counts"), arg("factors"), arg("lines"),
      arg("threads"));
  module.def(
      "row_divergence",
      [](const Tensors& tensors, const Tensor& base, const std::string& compute,
         const LinesTuple& lines, int threads) {
        const auto job = make_row_divergence(tensors, base, compute, lines);
        run_released(job, threads);
        return row_divergence_answer(*job);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("lines"), arg("threads"),
      "The bytes of [lines] doubles.");
  module.def(
      "masked_sum",
      [](const Tensors& tensors, const Tensor* base, const std::string& compute,
         const std::vector<py::tuple>& rules, const std::string& norm, int threads) {
        const auto job = make_masked_sum(tensors, base, compute, rules, norm);
        run_released(job, threads);
        return masked_sum_answer(*job);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("rules"), arg("norm"), arg("threads"));
  module.def(
      "overlap",
      [](const Tensors& tensors, const Tensor* base, const std::string& compute,
         const std::vector<py::tuple>& rules, int threads) {
        const auto job = make_overlap(tensors, base, compute, rules);
        run_released(job, threads);
        return overlap_answer(*job);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("rules"), arg("threads"));
  module.def(
      "weighted_sum",
      [](const Tensors& tensors, const py::none&, const std::string& compute,
         const std::string& out_dtype, std::vector<double> coefficients, const py::buffer& out,
         int threads) {
        const auto combine =
            make_weighted_sum(tensors, compute, out_dtype, std::move(coefficients));
        return run_combine(combine, out, tensors[0]->view.count, threads);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("out_dtype"), arg("coefficients"),
      arg("out"), arg("threads"), "Returns how many stored values are not finite.");
  module.def(
      "task_merge",
      [](const Tensors& tensors, const Tensor& base, const std::string& compute,
         const std::string& out_dtype, const std::vector<py::tuple>& rules,
         std::vector<double> coefficients, const std::string& consensus,
         std::vector<double> weights, bool normalize, double scale, std::vector<double> votes,
         std::vector<double> alone, bool pick, const py::buffer& out, int threads) {
        const auto combine = make_task_merge(
            tensors, base, compute, out_dtype, rules, std::move(coefficients), consensus,
            std::move(weights), normalize, scale, std::move(votes), std::move(alone), pick);
        return run_combine(combine, out, base.view.count, threads);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("out_dtype"), arg("rules"),
      arg("coefficients"), arg("consensus"), arg("weights"), arg("normalize"), arg("scale"),
      arg("votes"), arg("alone"), arg("pick"), arg("out"), arg("threads"),
      "Returns how many stored values are not finite.");
  module.def(
      "near_swap",
      [](const Tensors& tensors, const Tensor& base, const std::string& compute,
         const std::string& out_dtype, double t, const py::buffer& out, int threads) {
        const auto combine = make_near_swap(tensors, base, compute, out_dtype, t);
        return run_combine(combine, out, base.view.count, threads);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("out_dtype"), arg("t"), arg("out"),
      arg("threads"), "Returns how many stored values are not finite.");
  module.def(
      "fusion",
      [](const Tensors& tensors, const Tensor& base, const std::string& compute,
         const std::string& out_dtype, const py::buffer& factors, const LinesTuple& lines,
         double threshold, const py::buffer& out, int threads) {
        const auto combine =
            make_fusion(tensors, base, compute, out_dtype, factors, lines, threshold);
        return run_combine(combine, out, base.view.count, threads);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("out_dtype"), arg("factors"), arg("lines"),
      arg("threshold"), arg("out"), arg("threads"),
      "Returns how many stored values are not finite.");
  module.def("mask", &fill_mask, arg("delta"), arg("rule"), arg("compute"), arg("out"));
}

}  // namespace pymerge::bindings
