// Order statistics of magnitudes.
#include <algorithm>
#include <tuple>

#include "core/error.h"
#include "device_tensor.h"
#include "select/cuda/select.h"

namespace pymerge::bindings {
namespace {

using Counts = std::vector<std::int64_t>;
// low, high, room: see cuda::ForcedBracket.
using BracketTuple = std::tuple<std::uint64_t, std::uint64_t, std::int64_t>;

std::optional<cuda::ForcedBracket> to_forced(const std::optional<BracketTuple>& given) {
  if (!given) return std::nullopt;
  return cuda::ForcedBracket{std::get<0>(*given), std::get<1>(*given), std::get<2>(*given)};
}

// Tensors once each, and of which a cut is wanted.
std::pair<DeviceTensors, std::vector<cuda::Wanted>> to_wanted(const DeviceTensors& tensors,
                                                              const Counts& counts) {
  DeviceTensors different;
  std::vector<cuda::Wanted> wanted;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto same = [&](const DeviceTensor* other) { return other->data == tensors[i]->data; };
    const auto found = std::find_if(different.begin(), different.end(), same);
    wanted.push_back({static_cast<int>(found - different.begin()), counts.at(i)});
    if (found == different.end()) different.push_back(tensors[i]);
  }
  return {different, wanted};
}

py::object select(const cuda::Ordered& ordered, const std::vector<cuda::Wanted>& wanted,
                  const std::optional<BracketTuple>& bracket, std::uintptr_t stream) {
  std::vector<Rule::Cut> cuts;
  {
    const py::gil_scoped_release release;
    cuts = cuda::select(Stream(stream, "select"), ordered, wanted, to_forced(bracket));
  }
  return to_pairs(cuts);
}

}  // namespace

void bind_select(py::module_& module) {
  using py::arg;
  module.def(
      "select",
      [](const DeviceTensors& tensors, const DeviceTensor* base, const std::string& compute,
         const Counts& counts, std::uintptr_t stream, const std::optional<BracketTuple>& bracket) {
        const auto [different, wanted] = to_wanted(tensors, counts);
        return select({to_inputs(different, base, compute), {}, -1}, wanted, bracket, stream);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("counts"), arg("stream"),
      arg("bracket") = py::none(),
      "`bracket` (low, high, room): as if a sample had said so, with room for so many keys.");
  module.def(
      "select_spread",
      [](const DeviceTensors& tensors, const py::none&, const std::string& compute, double share,
         std::uintptr_t stream, const std::optional<BracketTuple>& bracket) {
        if (!(share >= 0 && share <= 1))
          throw Error(ErrorCode::kInternal, "a share is from 0 to 1");
        return select({to_inputs(tensors, nullptr, compute), {}, share}, {{0, 0}}, bracket, stream);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("share"), arg("stream"),
      arg("bracket") = py::none());
  module.def(
      "select_lines",
      [](const DeviceTensors& tensors, const DeviceTensor* base, const std::string& compute,
         const Counts& counts, const py::buffer& factors, const LinesTuple& given,
         std::uintptr_t stream) {
        const auto [different, wanted] = to_wanted(tensors, counts);
        const cuda::Inputs inputs = to_inputs(different, base, compute);
        const Lines lines = to_lines(inputs.count, given);
        return select({inputs, {to_numbers(factors, lines.count), lines}, -1}, wanted, {}, stream);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("counts"), arg("factors"), arg("lines"),
      arg("stream"));
  for (const bool open : {false, true}) {
    module.def(
        open ? "key_counts_open" : "key_counts",
        [open](const DeviceTensors& tensors, const DeviceTensor* base, const std::string& compute,
               const std::vector<std::uint64_t>& lows, int shift, std::int64_t buckets,
               std::uintptr_t stream) {
          const cuda::Inputs inputs = to_inputs(tensors, base, compute);
          std::vector<std::uint64_t> counts;
          {
            const py::gil_scoped_release release;
            counts =
                cuda::key_counts(Stream(stream, "key_counts"), inputs, lows, shift, buckets, open);
          }
          return to_bytes(counts);
        },
        arg("tensors"), arg("base"), arg("compute"), arg("lows"), arg("shift"), arg("buckets"),
        arg("stream"), "The bytes of [n, buckets] uint64; open, of [n, buckets + 1].");
  }
  module.def(
      "key_sample",
      [](const DeviceTensors& tensors, const DeviceTensor* base, const std::string& compute,
         std::int64_t apart, std::uintptr_t stream) {
        const cuda::Inputs inputs = to_inputs(tensors, base, compute);
        std::vector<std::uint64_t> keys;
        {
          const py::gil_scoped_release release;
          keys = cuda::key_sample(Stream(stream, "key_sample"), inputs, apart);
        }
        return to_bytes(keys);
      },
      arg("tensors"), arg("base"), arg("compute"), arg("apart"), arg("stream"),
      "The bytes of [n, keys] uint64.");
}

}  // namespace pymerge::bindings
