// pymerge._core: a table of contents.
#include "jobs.h"

PYBIND11_MODULE(_core, module) {
  using namespace pymerge::bindings;
  module.doc() = "The compiled core of pymerge; not a public interface.";
  bind_errors(module);
  bind_runtime(module);
  bind_io(module);
  bind_tensors(module);
  bind_ops(module);
  bind_engine(module);
}
