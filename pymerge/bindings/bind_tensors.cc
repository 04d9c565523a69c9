// Tensors as the core sees them: a window of a mapped file, or a Python buffer.
#include "common/combine.h"
#include "core/error.h"
#include "jobs.h"

namespace pymerge::bindings {
namespace {

Tensor from_file(const std::shared_ptr<MappedFile>& file, std::int64_t offset, std::int64_t count,
                 const std::string& code) {
  const DType dtype = to_dtype(code);
  const std::int64_t left = file->size() - offset;
  if (offset < 0 || left < 0 || count < 0 || count > left * 8 / dtype_bits(dtype)) {
    throw Error(ErrorCode::kFormat, "the file is shorter than its header said; it changed since",
                file->path());
  }
  return {{file->data() + offset, dtype, count, file, nullptr}, py::none()};
}

Tensor from_buffer(const py::buffer& buffer, const std::string& code) {
  const DType dtype = to_dtype(code);
  const py::buffer_info info = buffer.request();
  if (info.itemsize != item_size(dtype)) {
    throw Error(ErrorCode::kDType,
                "an array of " + std::to_string(info.itemsize) + "-byte items is not " + code);
  }
  if (info.ndim > 1 || (info.ndim == 1 && info.size > 1 && info.strides[0] != info.itemsize)) {
    throw Error(ErrorCode::kShape, "kernels take flat, contiguous arrays");
  }
  const auto* data = static_cast<const std::byte*>(info.ptr);
  return {{data, dtype, info.size, nullptr, nullptr}, buffer};
}

}  // namespace

void bind_tensors(py::module_& module) {
  py::class_<Tensor>(module, "Tensor")
      .def_static("from_file", &from_file, py::arg("file"), py::arg("offset"), py::arg("count"),
                  py::arg("code"))
      .def_static("from_buffer", &from_buffer, py::arg("buffer"), py::arg("code"))
      .def_property_readonly("count", [](const Tensor& tensor) { return tensor.view.count; })
      .def("is_nonfinite_at", [](const Tensor& tensor, std::int64_t index) {
        const auto* at = tensor.view.data + index * item_size(tensor.view.dtype);
        const bool found = index >= 0 && index < tensor.view.count &&
                           find_nonfinite(at, tensor.view.dtype, 1) == 0;
        tensor.view.check_whole();
        return found;
      });
}

}  // namespace pymerge::bindings
