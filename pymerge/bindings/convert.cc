#include "convert.h"

#include <utility>

#include "core/error.h"

namespace pymerge::bindings {

namespace {

template <typename Value>
using Names = std::vector<std::pair<std::string, Value>>;

const Names<Consensus> kConsensus = {{"none", Consensus::kNone},
                                     {"sum", Consensus::kSum},
                                     {"count", Consensus::kCount},
                                     {"overlap", Consensus::kOverlap}};
const Names<Norm> kNorms = {{"l1", Norm::kL1}, {"l2", Norm::kL2}, {"linf", Norm::kMax}};

template <typename Value>
Value find_named(const Names<Value>& names, const std::string& name) {
  for (const auto& [known, value] : names) {
    if (known == name) return value;
  }
  throw Error(ErrorCode::kInternal, "kernels know no \"" + name + "\"");
}

}  // namespace

Consensus to_consensus(const std::string& name) { return find_named(kConsensus, name); }

Norm to_norm(const std::string& name) { return find_named(kNorms, name); }

Compute to_compute(const std::string& name) {
  if (name == "float32") return Compute::kFloat32;
  if (name == "float64") return Compute::kFloat64;
  throw Error(ErrorCode::kDType, "kernels compute in float32 or float64, not in " + name);
}

DType to_dtype(const std::string& code) {
  if (const auto dtype = find_dtype(code)) return *dtype;
  throw Error(ErrorCode::kDType, "unknown dtype \"" + code + "\"");
}

std::vector<Rule> to_rules(const std::vector<py::tuple>& rules) {
  std::vector<Rule> out;
  for (const py::tuple& given : rules) {
    Rule rule;
    const auto kind = given[0].cast<std::string>();
    if (kind == "band") {
      rule.kind = Rule::Kind::kBand;
      rule.outer = {given[1].cast<std::uint64_t>(), given[2].cast<std::int64_t>()};
      rule.inner = {given[3].cast<std::uint64_t>(), given[4].cast<std::int64_t>()};
    } else if (kind == "bernoulli") {
      rule.kind = Rule::Kind::kBernoulli;
      rule.keep = given[1].cast<std::uint32_t>();
      rule.key = given[2].cast<std::uint64_t>();
    } else if (kind == "spread") {
      rule.kind = Rule::Kind::kSpread;
      rule.outer = {given[1].cast<std::uint64_t>(), given[2].cast<std::int64_t>()};
    } else if (kind == "rank_bernoulli") {
      rule.kind = Rule::Kind::kRanked;
      rule.density = given[1].cast<double>();
      rule.epsilon = given[2].cast<double>();
      rule.key = given[3].cast<std::uint64_t>();
      rule.row = given[4].cast<std::int64_t>();
      if (rule.row < 1) throw Error(ErrorCode::kInternal, "a mask rule ranks rows of no elements");
    } else if (kind != "all") {
      throw Error(ErrorCode::kInternal, "unknown mask rule \"" + kind + "\"");
    }
    out.push_back(rule);
  }
  return out;
}

Lines to_lines(std::int64_t count, const LinesTuple& given) {
  const Lines lines{std::get<0>(given), std::get<1>(given), std::get<2>(given)};
  if (lines.count < 1 || lines.length < 1 || lines.count * lines.length != count) {
    throw Error(ErrorCode::kInternal, "lines do not make up the tensor");
  }
  return lines;
}

std::vector<double> to_numbers(const py::buffer& given, std::int64_t count) {
  const py::buffer_info info = given.request();
  if (info.itemsize != sizeof(double) || info.size != count) {
    throw Error(ErrorCode::kInternal, "numbers per line are not so many doubles");
  }
  const auto* data = static_cast<const double*>(info.ptr);
  return {data, data + info.size};
}

void check_mergeable(DType dtype, std::int64_t count, std::int64_t wanted) {
  if (count != wanted) {
    throw Error(ErrorCode::kShape, "tensors of " + std::to_string(wanted) + " and " +
                                       std::to_string(count) + " elements cannot be merged");
  }
  if (!is_mergeable(dtype)) {
    throw Error(ErrorCode::kDType, "only F64, F32, F16 and BF16 can be merged");
  }
}

py::object to_rows(const std::vector<double>& partials, std::size_t pairs) {
  py::list rows;
  for (std::size_t at = 0; at < partials.size(); at += pairs) {
    py::tuple row(pairs);
    for (std::size_t pair = 0; pair < pairs; ++pair) row[pair] = partials[at + pair];
    rows.append(row);
  }
  return rows;
}

py::object to_pairs(const std::vector<Rule::Cut>& given) {
  py::list cuts;
  for (const Rule::Cut& cut : given) cuts.append(py::make_tuple(cut.bits, cut.last));
  return cuts;
}

}  // namespace pymerge::bindings
