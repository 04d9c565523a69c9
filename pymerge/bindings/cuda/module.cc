// pymerge._cuda: a table of contents. The kernels of _core under the same names, for tensors in a
// device's memory: measures return what _core's do, combines return when they are on the stream.
#include "device_tensor.h"

PYBIND11_MODULE(_cuda, module) {
  using namespace pymerge::bindings;
  module.doc() = "The CUDA kernels of pymerge; not a public interface.";
  bind_errors(module);
  bind_device(module);
  bind_span(module);
  bind_pointwise(module);
  bind_select(module);
  bind_tasks(module);
}
