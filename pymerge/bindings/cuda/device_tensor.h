// Tensors on a device as Python hands them over, and what the bind_*.cc files of _cuda share.
#pragma once

#include "../convert.h"
#include "common/cuda/inputs.h"
#include "runtime/device.h"

namespace pymerge::bindings {

// Memory of the current device; whoever passes it keeps it alive.
struct DeviceTensor {
  void* data;
  DType dtype;
  std::int64_t count;
};

using DeviceTensors = std::vector<const DeviceTensor*>;

// Checks that all tensors are of one length and mergeable; base may be null.
cuda::Inputs to_inputs(const DeviceTensors& tensors, const DeviceTensor* base,
                       const std::string& compute);
// Checks that it is as long as the inputs and of the dtype that was announced.
cuda::Output to_output(const DeviceTensor& out, const std::string& out_dtype,
                       const cuda::Inputs& inputs);

// One per subject; module.cc is their table of contents.
void bind_device(py::module_& module);
void bind_span(py::module_& module);
void bind_pointwise(py::module_& module);
void bind_select(py::module_& module);
void bind_tasks(py::module_& module);

}  // namespace pymerge::bindings
