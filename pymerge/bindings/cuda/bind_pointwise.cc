// One tensor around a base, element by element.
#include "device_tensor.h"
#include "fusion/cuda.h"
#include "near_swap/cuda.h"

namespace pymerge::bindings {

void bind_pointwise(py::module_& module) {
  using py::arg;
  module.def(
      "near_swap",
      [](const DeviceTensors& tensors, const DeviceTensor& base, const std::string& compute,
         const std::string& out_dtype, double t, const DeviceTensor& out, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, &base, compute);
        const cuda::Output output = to_output(out, out_dtype, inputs);
        const py::gil_scoped_release release;
        cuda::near_swap(Stream(stream, "near_swap"), inputs, t, output);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("out_dtype"), arg("t"), arg("out"),
      arg("stream"));
  module.def(
      "fusion",
      [](const DeviceTensors& tensors, const DeviceTensor& base, const std::string& compute,
         const std::string& out_dtype, const py::buffer& given, const LinesTuple& lines_given,
         double threshold, const DeviceTensor& out, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, &base, compute);
        const cuda::Output output = to_output(out, out_dtype, inputs);
        const Lines lines = to_lines(inputs.count, lines_given);
        const std::vector<double> factors = to_numbers(given, lines.count);
        const py::gil_scoped_release release;
        cuda::fusion(Stream(stream, "fusion"), inputs, factors, lines, threshold, output);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("out_dtype"), arg("factors"), arg("lines"),
      arg("threshold"), arg("out"), arg("stream"));
}

}  // namespace pymerge::bindings
