// A combine: what fills runs of one output tensor, wherever the output lies.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "common/canonical.h"
#include "common/inputs.h"
#include "runtime/job_queue.h"

namespace pymerge {

class Combine {
 public:
  Combine(Inputs inputs, Compute compute, DType out_dtype)
      : inputs_(std::move(inputs)), compute_(compute), out_dtype_(out_dtype) {}
  virtual ~Combine() = default;

  // Writes elements `range` of the output at `out`; returns how many of them are not finite.
  std::int64_t fill(Range range, std::byte* out, Scratch& scratch);
  DType out_dtype() const { return out_dtype_; }
  std::int64_t count() const { return inputs_.count(); }
  std::int64_t bytes(Range range) const { return inputs_.bytes(range); }
  const Inputs& inputs() const { return inputs_; }

 protected:
  // Writes a piece; returns whether any stored value is not finite.
  virtual bool combine(const Inputs::Piece& piece, std::byte* out, Scratch& scratch) = 0;

  const Inputs inputs_;
  const Compute compute_;
  const DType out_dtype_;
};

// A combine of `count` elements into memory, as a job.
class CombineJob : public TileJob {
 public:
  CombineJob(std::shared_ptr<Combine> combine, std::int64_t count, std::byte* out)
      : combine_(std::move(combine)), count_(count), out_(out) {}
  std::int64_t tiles() const override { return tile_count(count_); }
  void run(std::int64_t tile, Scratch& scratch) override;
  std::int64_t nonfinite() const { return nonfinite_; }

 private:
  const std::shared_ptr<Combine> combine_;
  const std::int64_t count_;
  std::byte* const out_;
  std::atomic<std::int64_t> nonfinite_{0};
};

// What a combine would give, as an input of another merge: worked out again whenever it is read.
class CombineDerived : public Derived {
 public:
  explicit CombineDerived(std::shared_ptr<Combine> combine) : combine_(std::move(combine)) {}
  void read(Range range, std::byte* out, Scratch& scratch) const override {
    combine_->fill(range, out, scratch);
  }
  void will_need(Range range) const override { combine_->inputs().will_need(range); }
  void load(std::byte* buffer) const override { combine_->inputs().load(buffer); }

 private:
  const std::shared_ptr<Combine> combine_;
};

// How many of `count` stored elements are infinite or NaN.
std::int64_t count_nonfinite(const std::byte* data, DType dtype, std::int64_t count);
// The flat index of the first of them, or -1.
std::int64_t find_nonfinite(const std::byte* data, DType dtype, std::int64_t count);

}  // namespace pymerge
