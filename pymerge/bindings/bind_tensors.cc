// Tensors as the core sees them: a window of a mapped file, a Python buffer, or derived from such.
#include <array>
#include <utility>

#include "common/combine.h"
#include "core/error.h"
#include "dequantize/derived.h"
#include "jobs.h"
#include "low_rank/derived.h"
#include "noise/derived.h"
#include "pack/packing.h"
#include "rows/derived.h"

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

// Python objects that own memory must outlive what is derived from it.
Tensor derive(std::shared_ptr<const Derived> derived, DType dtype, std::int64_t count,
              py::list owners) {
  return {{nullptr, dtype, count, nullptr, nullptr, std::move(derived)}, std::move(owners)};
}

std::vector<std::int64_t> to_indices(const py::buffer& given) {
  const py::buffer_info info = given.request();
  if (info.itemsize != sizeof(std::int64_t) || info.ndim != 1) {
    throw Error(ErrorCode::kInternal, "rows are given as flat arrays of 64-bit integers");
  }
  const auto* data = static_cast<const std::int64_t*>(info.ptr);
  return {data, data + info.size};
}

Tensor take_rows(const std::vector<const Tensor*>& parts, const py::buffer& starts,
                 const py::buffer& numbers, const py::buffer& rows, std::int64_t width,
                 const std::string& code) {
  std::vector<TensorView> views;
  py::list owners;
  for (const Tensor* part : parts) {
    views.push_back(part->view);
    owners.append(part->owner);
  }
  const DType dtype = to_dtype(code);
  auto derived = std::make_shared<RowsDerived>(
      std::move(views), RowChoice{to_indices(starts), to_indices(numbers), to_indices(rows)}, width,
      dtype);
  const std::int64_t count = derived->count();
  return derive(std::move(derived), dtype, count, std::move(owners));
}

// (a, b, rank, scale, transposed)
using UpdateTuple = std::tuple<const Tensor*, const Tensor*, int, double, bool>;

Tensor add_low_rank(const Tensor* base, const std::vector<UpdateTuple>& updates, std::int64_t rows,
                    std::int64_t columns) {
  std::vector<LowRankUpdate> made;
  py::list owners;
  for (const auto& [a, b, rank, scale, transposed] : updates) {
    made.push_back({a->view, b->view, rank, static_cast<float>(scale), transposed});
    owners.append(a->owner);
    owners.append(b->owner);
  }
  if (base != nullptr) owners.append(base->owner);
  auto derived = std::make_shared<LowRankDerived>(base == nullptr ? TensorView{} : base->view,
                                                  std::move(made), rows, columns);
  return derive(std::move(derived), DType::kF32, rows * columns, std::move(owners));
}

// Of fp8: (matrices, rows, columns, rows and columns that share a scale).
using ScaledShape =
    std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

template <typename Made>
Tensor derive_floats(std::shared_ptr<Made> derived, py::list owners) {
  const std::int64_t count = derived->count();
  return derive(std::move(derived), DType::kF32, count, std::move(owners));
}

py::list list_owners(const Tensor& first, const Tensor& second) {
  py::list owners;
  owners.append(first.owner);
  owners.append(second.owner);
  return owners;
}

Tensor scale_blocks(const Tensor& codes, const Tensor& scales, const ScaledShape& shape) {
  const auto [matrices, rows, columns, block_rows, block_columns] = shape;
  return derive_floats(
      std::make_shared<ScaledDerived>(
          codes.view, scales.view,
          ScaledDerived::Shape{matrices, rows, columns, block_rows, block_columns}),
      list_owners(codes, scales));
}

Tensor scale_groups(const Tensor& codes, const Tensor& scales, std::int64_t rows,
                    std::int64_t groups) {
  return derive_floats(std::make_shared<TurnedDerived>(codes.view, scales.view, rows, groups),
                       list_owners(codes, scales));
}

Tensor unpack_blocks(const Tensor& blocks, const std::string& format) {
  py::list owners;
  owners.append(blocks.owner);
  return derive_floats(std::make_shared<PackedDerived>(blocks.view, format), std::move(owners));
}

Tensor add_noise(const Tensor* base, std::int64_t count, std::uint64_t key, double scale,
                 const std::string& kind) {
  py::list owners;
  if (base != nullptr) owners.append(base->owner);
  return derive_floats(std::make_shared<NoiseDerived>(base == nullptr ? TensorView{} : base->view,
                                                      count, key, static_cast<float>(scale), kind),
                       std::move(owners));
}

Tensor from_combine(std::shared_ptr<Combine> combine) {
  const DType dtype = combine->out_dtype();
  const std::int64_t count = combine->count();
  return derive(std::make_shared<CombineDerived>(std::move(combine)), dtype, count, py::list());
}

// Elements from `begin` on, as many as `out` has room for.
void read_into(const Tensor& tensor, std::int64_t begin, const py::buffer& out) {
  const py::buffer_info info = out.request(true);
  const std::int64_t nbytes = info.size * info.itemsize;
  const std::int64_t item = item_size(tensor.view.dtype);
  if (begin < 0 || nbytes % item != 0 || nbytes / item > tensor.view.count - begin) {
    throw Error(ErrorCode::kInternal, "a tensor is read past its end");
  }
  const py::gil_scoped_release release;
  Scratch scratch;
  tensor.view.read({begin, nbytes / item}, static_cast<std::byte*>(info.ptr), scratch);
}

// Bytes from `begin` on of a tensor in the form of GGUF files; returns how many of the elements are
// not finite.
std::int64_t pack_into(const Tensor& tensor, const std::string& format, std::int64_t begin,
                       const py::buffer& out) {
  const py::buffer_info info = out.request(true);
  const Packing packing(tensor.view, format);
  const py::gil_scoped_release release;
  Scratch scratch;
  return packing.fill(begin, info.size * info.itemsize, static_cast<std::byte*>(info.ptr), scratch);
}

bool is_nonfinite_at(const Tensor& tensor, std::int64_t index) {
  if (index < 0 || index >= tensor.view.count || !is_mergeable(tensor.view.dtype)) return false;
  std::array<std::byte, sizeof(double)> element;
  Scratch scratch;
  tensor.view.read({index, 1}, element.data(), scratch);
  return find_nonfinite(element.data(), tensor.view.dtype, 1) == 0;
}

}  // namespace

void bind_tensors(py::module_& module) {
  py::class_<Tensor>(module, "Tensor")
      .def_static("from_file", &from_file, py::arg("file"), py::arg("offset"), py::arg("count"),
                  py::arg("code"))
      .def_static("from_buffer", &from_buffer, py::arg("buffer"), py::arg("code"))
      .def_static("take_rows", &take_rows, py::arg("parts"), py::arg("starts"), py::arg("numbers"),
                  py::arg("rows"), py::arg("width"), py::arg("code"))
      .def_static("add_low_rank", &add_low_rank, py::arg("base"), py::arg("updates"),
                  py::arg("rows"), py::arg("columns"))
      .def_static("scale_blocks", &scale_blocks, py::arg("codes"), py::arg("scales"),
                  py::arg("shape"))
      .def_static("scale_groups", &scale_groups, py::arg("codes"), py::arg("scales"),
                  py::arg("rows"), py::arg("groups"))
      .def_static("unpack_blocks", &unpack_blocks, py::arg("blocks"), py::arg("format"))
      .def_static("add_noise", &add_noise, py::arg("base"), py::arg("count"), py::arg("key"),
                  py::arg("scale"), py::arg("kind"))
      .def_static("from_combine", &from_combine, py::arg("combine"))
      .def_property_readonly("count", [](const Tensor& tensor) { return tensor.view.count; })
      .def("read_into", &read_into, py::arg("begin"), py::arg("out"))
      .def("pack_into", &pack_into, py::arg("format"), py::arg("begin"), py::arg("out"))
      .def("is_nonfinite_at", &is_nonfinite_at);
}

}  // namespace pymerge::bindings
