// Merged values that are not the core's own: Python's `made.read(begin, out, once)` copies bytes of
// them.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>

#include "common/combine.h"
#include "runtime/aligned_buffer.h"

namespace pymerge::bindings {

namespace py = pybind11;

class Made {
 public:
  Made(std::shared_ptr<const py::object> object, DType dtype)
      : object_(std::move(object)), dtype_(dtype) {}

  // As a Filler. Called without the GIL, as is find_nonfinite.
  std::int64_t fill(std::int64_t begin, std::int64_t length, std::byte* out) const {
    read(begin, length, out, true);
    const std::int64_t count = length / item_size(dtype_);
    const std::int64_t bad = count_nonfinite(out, dtype_, count);
    if (bad > 0) note(begin / item_size(dtype_) + pymerge::find_nonfinite(out, dtype_, count));
    return bad;
  }

  // The flat index of the first value that is not finite, or -1. Not all that is before the first
  // that was met need have been looked at; what was may be gone, and then reads as zeros.
  std::int64_t find_nonfinite() const {
    const std::int64_t met = first();
    const std::int64_t size = item_size(dtype_);
    const AlignedBuffer piece(static_cast<std::size_t>(kPieceBytes));
    for (std::int64_t at = 0; at < met; at += kPieceBytes / size) {
      const std::int64_t count = std::min(kPieceBytes / size, met - at);
      read(at * size, count * size, piece.data(), false);
      const std::int64_t found = pymerge::find_nonfinite(piece.data(), dtype_, count);
      if (found >= 0) return at + found;
    }
    return met;
  }

 private:
  static constexpr std::int64_t kPieceBytes = 4 << 20;

  void read(std::int64_t begin, std::int64_t length, std::byte* out, bool once) const {
    const py::gil_scoped_acquire gil;
    object_->attr("read")(begin, py::memoryview::from_memory(out, length), once);
  }
  void note(std::int64_t at) const {
    const std::lock_guard lock(mutex_);
    first_ = first_ < 0 ? at : std::min(first_, at);
  }
  std::int64_t first() const {
    const std::lock_guard lock(mutex_);
    return first_;
  }

  const std::shared_ptr<const py::object> object_;
  const DType dtype_;
  mutable std::mutex mutex_;
  mutable std::int64_t first_ = -1;
};

}  // namespace pymerge::bindings
