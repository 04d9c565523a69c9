// Task vectors under masks.
#include "core/error.h"
#include "device_tensor.h"
#include "mask/cuda.h"
#include "masked_sum/cuda.h"
#include "overlap/cuda.h"
#include "row_divergence/cuda.h"
#include "task_merge/cuda.h"

namespace pymerge::bindings {

void bind_tasks(py::module_& module) {
  using py::arg;
  module.def(
      "task_merge",
      [](const DeviceTensors& tensors, const DeviceTensor& base, const std::string& compute,
         const std::string& out_dtype, const std::vector<py::tuple>& rules,
         std::vector<double> coefficients, const std::string& consensus,
         std::vector<double> weights, bool normalize, double scale, std::vector<double> votes,
         std::vector<double> alone, bool pick, const DeviceTensor& out, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, &base, compute);
        const cuda::Output output = to_output(out, out_dtype, inputs);
        const TaskMergeNumbers numbers{to_rules(rules),
                                       std::move(coefficients),
                                       to_consensus(consensus),
                                       std::move(weights),
                                       normalize,
                                       scale,
                                       std::move(votes),
                                       std::move(alone),
                                       pick};
        const py::gil_scoped_release release;
        cuda::task_merge(Stream(stream, "task_merge"), inputs, numbers, output);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("out_dtype"), arg("rules"),
      arg("coefficients"), arg("consensus"), arg("weights"), arg("normalize"), arg("scale"),
      arg("votes"), arg("alone"), arg("pick"), arg("out"), arg("stream"));
  module.def(
      "masked_sum",
      [](const DeviceTensors& tensors, const DeviceTensor* base, const std::string& compute,
         const std::vector<py::tuple>& given, const std::string& norm_name, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, base, compute);
        const std::vector<Rule> rules = to_rules(given);
        const Norm norm = to_norm(norm_name);
        std::vector<MaskedTotals> totals;
        {
          const py::gil_scoped_release release;
          totals = cuda::masked_sum(Stream(stream, "masked_sum"), inputs, rules, norm);
        }
        py::list rows;
        for (const MaskedTotals& part : totals) {
          rows.append(py::make_tuple(part.total, part.kept, part.count));
        }
        return rows;
      },
      arg("tensors"), arg("base"), arg("compute"), arg("rules"), arg("norm"), arg("stream"));
  module.def(
      "overlap",
      [](const DeviceTensors& tensors, const DeviceTensor* base, const std::string& compute,
         const std::vector<py::tuple>& given, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, base, compute);
        const std::vector<Rule> rules = to_rules(given);
        std::vector<OverlapCounts> counts;
        {
          const py::gil_scoped_release release;
          counts = cuda::overlap(Stream(stream, "overlap"), inputs, rules);
        }
        py::list rows;
        for (const OverlapCounts& part : counts) {
          rows.append(py::make_tuple(part.alone, part.shared));
        }
        return rows;
      },
      arg("tensors"), arg("base"), arg("compute"), arg("rules"), arg("stream"));
  module.def(
      "row_divergence",
      [](const DeviceTensors& tensors, const DeviceTensor& base, const std::string& compute,
         const LinesTuple& given, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, &base, compute);
        const Lines rows = to_lines(inputs.count, given);
        if (inputs.size() != 1 || rows.strided) {
          throw Error(ErrorCode::kInternal, "divergences are of one tensor's rows");
        }
        std::vector<double> divergences;
        {
          const py::gil_scoped_release release;
          divergences = cuda::row_divergence(Stream(stream, "row_divergence"), inputs, rows);
        }
        return to_bytes(divergences);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("lines"), arg("stream"),
      "The bytes of [lines] doubles.");
  module.def(
      "mask",
      [](const DeviceTensor& delta, const py::tuple& given, const std::string& compute,
         const DeviceTensor& out, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs({&delta}, nullptr, compute);
        const Rule rule = to_rules({given})[0];
        if (rule.kind == Rule::Kind::kSpread) {
          throw Error(ErrorCode::kInternal, "one task vector alone has no spread");
        }
        if (out.dtype != DType::kI8 || out.count != inputs.count) {
          throw Error(ErrorCode::kShape, "a mask is int8, and as long as its task vector");
        }
        const py::gil_scoped_release release;
        cuda::mask(Stream(stream, "mask"), inputs, rule, static_cast<std::int8_t*>(out.data));
      },
      arg("delta"), arg("rule"), arg("compute"), arg("out"), arg("stream"));
}

}  // namespace pymerge::bindings
