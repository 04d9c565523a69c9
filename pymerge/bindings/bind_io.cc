// Headers, mapped files, and what a folder can do.
#include "io/digest.h"
#include "io/file_copy.h"
#include "io/output_file.h"
#include "io/safetensors_header.h"
#include "jobs.h"

namespace pymerge::bindings {
namespace {

py::tuple describe(const SafetensorsHeader& header) {
  py::list entries;
  for (const HeaderEntry& entry : header.entries) {
    const py::tuple shape(py::cast(entry.shape));
    entries.append(py::make_tuple(entry.name,
                                  std::string(kDTypes[static_cast<int>(entry.dtype)].code), shape,
                                  entry.begin, entry.end));
  }
  py::dict metadata;
  for (const auto& [key, value] : header.metadata) metadata[py::str(key)] = value;
  return py::make_tuple(entries, metadata);
}

py::tuple read_header(const std::string& path) {
  SafetensorsHeader header;
  {
    const py::gil_scoped_release release;
    header = read_safetensors_header(path);
  }
  return describe(header);
}

py::tuple parse_header(const std::string& text, std::int64_t data_size, const std::string& path) {
  SafetensorsHeader header;
  {
    const py::gil_scoped_release release;
    header = parse_safetensors_header(text, data_size, path);
  }
  return describe(header);
}

}  // namespace

void bind_io(py::module_& module) {
  module.def("dtypes", [] {
    std::vector<std::pair<std::string, int>> out;
    for (const DTypeInfo& info : kDTypes) out.emplace_back(info.code, info.bits);
    return out;
  });
  module.def("read_header", &read_header, py::arg("path"),
             "Check a safetensors header; ([(name, code, shape, begin, end)], metadata), offsets "
             "absolute in bytes. Raises FormatError.");
  module.def(
      "parse_header", &parse_header, py::arg("text"), py::arg("data_size"), py::arg("path"),
      "The same of a header that is in memory, without its length prefix; `path` is for messages.");
  module.def("sync_folder", &sync_folder, py::arg("path"),
             py::call_guard<py::gil_scoped_release>());
  module.def("reserve_output", &reserve_output, py::arg("path"), py::arg("size"),
             py::call_guard<py::gil_scoped_release>());
  module.def("digest_ranges", &digest_ranges, py::arg("path"), py::arg("ranges"),
             py::arg("threads"), py::call_guard<py::gil_scoped_release>(),
             "Hexadecimal digests of [(offset, nbytes)] of a file (csrc/io/digest.h).");
  module.def("can_share", &can_share, py::arg("folder"), py::arg("path"),
             "Whether files made in `folder` can share extents with the file at `path`.");
  module.def(
      "probe_direct_io",
      [](const std::string& folder) {
        std::string why;
        const bool direct = probe_direct_io(folder, why);
        return std::make_pair(direct, why);
      },
      py::arg("folder"));
  py::class_<MappedFile, std::shared_ptr<MappedFile>>(module, "MappedFile")
      .def(py::init<std::string>(), py::arg("path"))
      .def_property_readonly("size", &MappedFile::size);
}

}  // namespace pymerge::bindings
