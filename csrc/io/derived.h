// A tensor whose elements are worked out when they are read: rows in another order, low-rank
// updates, quantized blocks, what another merge would give. Kernels see the result only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/operand.h"
#include "runtime/aligned_buffer.h"

namespace pymerge {

class Derived {
 public:
  Derived() = default;
  Derived(const Derived&) = delete;
  Derived& operator=(const Derived&) = delete;
  virtual ~Derived() = default;

  // Writes elements `range` at `out`, in the dtype that its view says. Called by any number of
  // threads, for any ranges. `scratch` is not what the caller's own copies are in.
  virtual void read(Range range, std::byte* out, Scratch& scratch) const = 0;
  // Hints, as those of MappedFile; ranges are of this tensor's elements.
  virtual void will_need(Range range) const = 0;
  virtual void load(std::byte* buffer) const = 0;
};

}  // namespace pymerge
