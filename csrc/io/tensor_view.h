// A tensor in memory or in a mapped file, kept alive by its owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/operand.h"
#include "io/mapped_file.h"

namespace pymerge {

struct TensorView {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t count = 0;
  std::shared_ptr<const MappedFile> file;  // null: plain memory
  std::shared_ptr<const void> owner;       // keeps plain memory alive

  Operand operand() const { return {data, dtype}; }
  std::int64_t nbytes() const { return count * dtype_bits(dtype) / 8; }

  // What MappedFile offers, in elements; plain memory is always read in place.
  bool is_cheap_in_place() const { return !file || file->is_cheap_in_place(offset(), nbytes()); }
  void read(Range range, std::byte* out) const { file->read(offset(range), length(range), out); }
  // `buffer` holds MappedFile::kHugePage bytes.
  void load(std::byte* buffer) const {
    if (file) file->load(offset(), nbytes(), buffer);
  }
  // After reading in place; see MappedFile.
  void check_whole() const {
    if (file) file->check_whole();
  }
  void will_need(Range range) const {
    if (file) file->will_need(offset(range), length(range));
  }
  void done_with(Range range) const {
    if (file) file->done_with(offset(range), length(range));
  }
  // Of the first byte in its file.
  std::int64_t offset() const { return data - file->data(); }

 private:
  std::int64_t offset(Range range) const { return offset() + range.begin * item_size(dtype); }
  std::int64_t length(Range range) const { return range.count * item_size(dtype); }
};

}  // namespace pymerge
