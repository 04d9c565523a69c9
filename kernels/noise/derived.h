// A tensor with numbers added that are drawn while it is read. Contract: spec.py.
#pragma once

#include <cstdint>
#include <string>

#include "io/tensor_view.h"
#include "noise/noise.h"

namespace pymerge {

class NoiseDerived : public Derived {
 public:
  // `base` may be an empty view: zeros. `kind` is a name of spec.py's KINDS. Throws if there is no
  // such kind, or the base has another count. The result is float32.
  NoiseDerived(TensorView base, std::int64_t count, std::uint64_t key, float scale,
               const std::string& kind);

  std::int64_t count() const { return count_; }
  void read(Range range, std::byte* out, Scratch& scratch) const override;
  void will_need(Range range) const override;
  void load(std::byte* buffer) const override;

 private:
  const NoiseKernel& kernel_;
  const TensorView base_;
  const std::int64_t count_;
  const std::uint64_t key_;
  const float scale_;
  const int kind_;
};

}  // namespace pymerge
