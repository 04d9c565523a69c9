// A tensor in memory, in a mapped file, or derived from such; kept alive by its owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "core/operand.h"
#include "io/derived.h"
#include "io/mapped_file.h"

namespace pymerge {

struct TensorView {
  const std::byte* data = nullptr;  // null: derived, or no tensor at all
  DType dtype = DType::kF32;
  std::int64_t count = 0;
  std::shared_ptr<const MappedFile> file;  // null: plain memory, or derived
  std::shared_ptr<const void> owner;       // keeps plain memory alive
  std::shared_ptr<const Derived> derived = nullptr;

  bool exists() const { return data != nullptr || derived != nullptr; }
  // What tells it from other tensors that are there at the same time.
  const void* identity() const { return derived ? static_cast<const void*>(derived.get()) : data; }
  Operand operand() const { return {data, dtype}; }
  std::int64_t nbytes() const { return count * dtype_bits(dtype) / 8; }

  // What MappedFile offers, in elements; plain memory is always read in place, what is derived
  // never.
  bool is_cheap_in_place() const {
    return file ? file->is_cheap_in_place(offset(), nbytes()) : !derived;
  }
  bool is_in_memory() const { return !file && !derived; }
  void read(Range range, std::byte* out, Scratch& scratch) const {
    if (derived) {
      derived->read(range, out, scratch.nested());
    } else if (file) {
      file->read(offset(range), length(range), out);
    } else {
      std::memcpy(out, data + range.begin * item_size(dtype),
                  static_cast<std::size_t>(length(range)));
    }
  }
  // `buffer` holds MappedFile::kHugePage bytes.
  void load(std::byte* buffer) const {
    if (file) file->load(offset(), nbytes(), buffer);
    if (derived) derived->load(buffer);
  }
  // After reading in place; see MappedFile.
  void check_whole() const {
    if (file) file->check_whole();
  }
  void will_need(Range range) const {
    if (file) file->will_need(offset(range), length(range));
    if (derived) derived->will_need(range);
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
