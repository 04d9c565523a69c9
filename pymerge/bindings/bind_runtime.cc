// Instruction-set levels.
#include "jobs.h"
#include "runtime/isa.h"

namespace pymerge::bindings {

void bind_runtime(py::module_& module) {
  module.def(
      "isa_levels",
      [] {
        std::vector<std::pair<std::string, bool>> out;
        for (const IsaStatus& status : isa_levels())
          out.emplace_back(status.name, status.supported);
        return out;
      },
      "(name, supported by this machine) of each compiled-in level, lowest first.");
  module.def("active_isa", [] { return std::string(isa_name(active_isa())); });
  module.def("force_isa", &force_isa, py::arg("name"));
}

}  // namespace pymerge::bindings
