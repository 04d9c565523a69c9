// Tensors of a device, and whether there is one.
#include "core/error.h"
#include "device_tensor.h"

namespace pymerge::bindings {

cuda::Inputs to_inputs(const DeviceTensors& tensors, const DeviceTensor* base,
                       const std::string& compute) {
  if (tensors.empty()) throw Error(ErrorCode::kInternal, "a kernel was called without tensors");
  cuda::Inputs inputs;
  inputs.count = tensors[0]->count;
  inputs.compute = to_compute(compute);
  for (const DeviceTensor* tensor : tensors) {
    check_mergeable(tensor->dtype, tensor->count, inputs.count);
    inputs.tensors.push_back({tensor->data, tensor->dtype});
  }
  if (base != nullptr) {
    check_mergeable(base->dtype, base->count, inputs.count);
    inputs.base = {base->data, base->dtype};
    inputs.has_base = true;
  }
  return inputs;
}

cuda::Output to_output(const DeviceTensor& out, const std::string& out_dtype,
                       const cuda::Inputs& inputs) {
  check_mergeable(out.dtype, out.count, inputs.count);
  if (out.dtype != to_dtype(out_dtype)) {
    throw Error(ErrorCode::kDType, "the output is not of " + out_dtype);
  }
  return {out.data, out.dtype};
}

void bind_device(py::module_& module) {
  // Local, so that the kernels and their emulation can be loaded into one process.
  py::class_<DeviceTensor>(module, "DeviceTensor", py::module_local())
      .def(py::init([](std::uintptr_t pointer, const std::string& code, std::int64_t count) {
             return DeviceTensor{reinterpret_cast<void*>(pointer), to_dtype(code), count};
           }),
           py::arg("pointer"), py::arg("code"), py::arg("count"));
  module.def("why_unavailable", &why_no_device,
             "What stands against running on the current device, empty if nothing does.");
  module.attr("COMPILER") = device_compiler();
#ifdef PYMERGE_EMULATED_CUDA
  module.attr("EMULATED") = true;
#else
  module.attr("EMULATED") = false;
#endif
}

}  // namespace pymerge::bindings
