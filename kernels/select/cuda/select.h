// select on a CUDA device. Contract: spec.py; how it goes: search.cu.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/cuda/inputs.h"
#include "common/lines.h"
#include "runtime/device.h"

namespace pymerge::cuda {

// What is ordered.
struct Ordered {
  Inputs inputs;  // each tensor once
  // Of the magnitudes, if there are any.
  LineNumbers factors;
  // Not negative: how far all tensors are apart is ordered, and this share of the elements that are
  // apart at all is wanted; the only cut then.
  double share = -1;
};

// A cut that is asked for.
struct Wanted {
  int tensor;
  std::int64_t count;
};

// What a sample would say, and how many keys may be gathered: for tests.
struct ForcedBracket {
  std::uint64_t low;
  std::uint64_t high;
  std::int64_t room;
};

std::vector<Rule::Cut> select(const Stream& stream, const Ordered& ordered,
                              const std::vector<Wanted>& wanted,
                              const std::optional<ForcedBracket>& forced = std::nullopt);

// [n][buckets + open], row-major; one tensor may be listed several times.
std::vector<std::uint64_t> key_counts(const Stream& stream, const Inputs& inputs,
                                      const std::vector<std::uint64_t>& lows, int shift,
                                      std::int64_t buckets, bool open);

// [n][keys of one tensor], row-major; `apart` > 64.
std::vector<std::uint64_t> key_sample(const Stream& stream, const Inputs& inputs,
                                      std::int64_t apart);

}  // namespace pymerge::cuda
