// Task vectors under masks.
#include "core/error.h"
#include "device_tensor.h"
#include "mask/cuda.h"
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
        const cuda::TaskNumbers numbers{to_rules(rules),
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
