// How Python values become C++ ones and back; shared by both extension modules.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "common/canonical.h"
#include "common/lines.h"
#include "core/dtype.h"
#include "masked_sum/masked_sum.h"
#include "task_merge/task_merge.h"

namespace pymerge::bindings {

namespace py = pybind11;

Compute to_compute(const std::string& name);
DType to_dtype(const std::string& code);
Consensus to_consensus(const std::string& name);
Norm to_norm(const std::string& name);
// ("all",) | ("band", outer bits, outer last, inner bits, inner last) | ("bernoulli", keep, key) |
// ("spread", bits, last) | ("rank_bernoulli", density, epsilon, key, row)
std::vector<Rule> to_rules(const std::vector<py::tuple>& rules);

// (count, length, strided)
using LinesTuple = std::tuple<std::int64_t, std::int64_t, bool>;
// Checks that they make up `count` elements.
Lines to_lines(std::int64_t count, const LinesTuple& given);
// Of a flat buffer of [count] doubles.
std::vector<double> to_numbers(const py::buffer& given, std::int64_t count);

// Throws unless a tensor of `count` elements of this dtype can be merged with others of `wanted`.
void check_mergeable(DType dtype, std::int64_t count, std::int64_t wanted);

template <typename Number>
py::object to_bytes(const std::vector<Number>& numbers) {
  return py::bytes(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(Number));
}
// [rows][pairs], row-major, to a list of tuples.
py::object to_rows(const std::vector<double>& partials, std::size_t pairs);
// (bits, last) of each.
py::object to_pairs(const std::vector<Rule::Cut>& cuts);

void bind_errors(py::module_& module);

}  // namespace pymerge::bindings
