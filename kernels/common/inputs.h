// The tensors that one request reads, with the hints that keep reading ahead of the kernels and
// resident memory behind them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/canonical.h"
#include "io/tensor_view.h"

namespace pymerge {

class Inputs {
 public:
  // Read ahead in steps of kStep elements, kAhead of them in front of the first reader. 8 Mi bf16
  // elements are 16 MiB: two default readahead windows of a 2026 kernel, so a disk never idles.
  static constexpr std::int64_t kStep = 4 << 20;
  static constexpr std::int64_t kAhead = 2;

  // `base` may have no data: then there is none.
  Inputs(std::vector<TensorView> tensors, TensorView base)
      : tensors_(std::move(tensors)), base_(std::move(base)) {
    for (const TensorView& tensor : tensors_) operands_.push_back(tensor.operand());
    base_operand_ = base_.operand();
    each([](const TensorView& view) { view.will_need({0, std::min(view.count, kStep * kAhead)}); });
  }

  int size() const { return static_cast<int>(operands_.size()); }
  std::int64_t count() const { return tensors_.empty() ? base_.count : tensors_[0].count; }
  const Operand* operands() const { return operands_.data(); }
  const Operand* base() const { return has_base() ? &base_operand_ : nullptr; }
  bool has_base() const { return base_.data != nullptr; }
  const std::vector<TensorView>& tensors() const { return tensors_; }

  // Bytes that one pass over `range` reads.
  std::int64_t bytes(Range range) const {
    std::int64_t total = 0;
    each([&](const TensorView& view) { total += range.count * item_size(view.dtype); });
    return total;
  }

  void enter(Range range) const {
    // Once per step: where this range crosses (or touches) a step's first element.
    const std::int64_t step = (range.begin + range.count - 1) / kStep;
    if (step == 0 || step * kStep < range.begin) return;
    const std::int64_t ahead = (step + kAhead - 1) * kStep;
    each([&](const TensorView& view) {
      if (ahead < view.count) view.will_need({ahead, std::min(kStep, view.count - ahead)});
    });
  }

  void leave(Range range) const {
    each([&](const TensorView& view) { view.done_with(range); });
  }

 private:
  template <typename Body>
  void each(const Body& body) const {
    for (const TensorView& tensor : tensors_) body(tensor);
    if (has_base()) body(base_);
  }

  std::vector<TensorView> tensors_;
  TensorView base_;
  std::vector<Operand> operands_;
  Operand base_operand_{};
};

}  // namespace pymerge
