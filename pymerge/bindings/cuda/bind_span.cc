// What stays in the span of its inputs: inner products and weighted sums.
#include "device_tensor.h"
#include "gram/cuda.h"
#include "weighted_sum/cuda.h"

namespace pymerge::bindings {

void bind_span(py::module_& module) {
  using py::arg;
  module.def(
      "gram",
      [](const DeviceTensors& tensors, const DeviceTensor* base, const std::string& compute,
         std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, base, compute);
        std::vector<double> partials;
        {
          const py::gil_scoped_release release;
          partials = cuda::gram(Stream(stream, "gram"), inputs);
        }
        const std::size_t n = tensors.size();
        return to_rows(partials, n * (n + 1) / 2);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("stream"));
  module.def(
      "gram_lines",
      [](const DeviceTensors& tensors, const DeviceTensor* base, const std::string& compute,
         const LinesTuple& given, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, base, compute);
        const Lines lines = to_lines(inputs.count, given);
        std::vector<double> sums;
        {
          const py::gil_scoped_release release;
          sums = cuda::gram_lines(Stream(stream, "gram"), inputs, lines);
        }
        return to_bytes(sums);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("lines"), arg("stream"),
      "The bytes of [lines, n (n + 1) / 2] doubles.");
  module.def(
      "weighted_sum",
      [](const DeviceTensors& tensors, const py::none&, const std::string& compute,
         const std::string& out_dtype, const std::vector<double>& coefficients,
         const DeviceTensor& out, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, nullptr, compute);
        const cuda::Output output = to_output(out, out_dtype, inputs);
        const py::gil_scoped_release release;
        cuda::weighted_sum(Stream(stream, "weighted_sum"), inputs, coefficients, output);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("out_dtype"), arg("coefficients"),
      arg("out"), arg("stream"));
  module.def(
      "weighted_sum_lines",
      [](const DeviceTensors& tensors, const DeviceTensor* base, const std::string& compute,
         const std::string& out_dtype, const py::buffer& given, const LinesTuple& lines_given,
         const DeviceTensor& out, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, base, compute);
        const cuda::Output output = to_output(out, out_dtype, inputs);
        const Lines lines = to_lines(inputs.count, lines_given);
        const std::vector<double> coefficients = to_numbers(given, lines.count * inputs.size());
        const py::gil_scoped_release release;
        cuda::weighted_sum_lines(Stream(stream, "weighted_sum"), inputs, coefficients, lines,
                                 output);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("out_dtype"), arg("coefficients"),
      arg("lines"), arg("out"), arg("stream"));
}

}  // namespace pymerge::bindings
