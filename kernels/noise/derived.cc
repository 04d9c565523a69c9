#include "noise/derived.h"

#include <algorithm>
#include <utility>

#include "common/chunk.h"
#include "common/read_floats.h"
#include "core/error.h"
#include "runtime/isa.h"

namespace pymerge {
namespace {

constexpr const char* kNames[] = {"normal", "uniform"};

int find_kind(const std::string& name) {
  for (int i = 0; i < static_cast<int>(Noise::kCount); ++i) {
    if (name == kNames[i]) return i;
  }
  throw Error(ErrorCode::kInternal, "no noise is called " + name);
}

}  // namespace

NoiseDerived::NoiseDerived(TensorView base, std::int64_t count, std::uint64_t key, float scale,
                           const std::string& kind)
    : kernel_(PYMERGE_SELECT_LEVEL(noise, active_isa())),
      base_(std::move(base)),
      count_(count),
      key_(key),
      scale_(scale),
      kind_(find_kind(kind)) {
  if (count_ < 0 || (base_.exists() && (base_.count != count_ || !is_mergeable(base_.dtype)))) {
    throw Error(ErrorCode::kInternal, "noise does not fit the tensor that it is added to");
  }
}

void NoiseDerived::read(Range range, std::byte* out, Scratch& scratch) const {
  auto* const to = reinterpret_cast<float*>(out);
  if (base_.exists()) {
    read_floats(base_, range, to, scratch);
  } else {
    std::fill(to, to + range.count, 0.0f);
  }
  for_each_chunk(range, [&](std::int64_t begin, int n) {
    kernel_.add[kind_](key_, begin, n, scale_, to + (begin - range.begin));
  });
}

void NoiseDerived::will_need(Range range) const { base_.will_need(range); }

void NoiseDerived::load(std::byte* buffer) const { base_.load(buffer); }

}  // namespace pymerge
