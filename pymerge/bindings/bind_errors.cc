// The one translator from the core's Error to pymerge.errors.
#include "convert.h"
#include "core/error.h"

namespace pymerge::bindings {

void bind_errors(py::module_& module) {
  module.attr("__errors__") = py::module_::import("pymerge.errors");
  py::register_exception_translator([](std::exception_ptr caught) {
    try {
      if (caught) std::rethrow_exception(caught);
    } catch (const Error& error) {
      constexpr const char* kNames[] = {"FormatError",  "ShapeError",    "DTypeError",
                                        "BackendError", "ResourceError", "InternalError"};
      const py::object type =
          py::module_::import("pymerge.errors").attr(kNames[static_cast<int>(error.code())]);
      PyErr_SetString(type.ptr(), error.what());
    }
  });
}

}  // namespace pymerge::bindings
