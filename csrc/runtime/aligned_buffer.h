// Page-aligned memory: what direct writes need, and what keeps kernel scratch off shared lines.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>

#include "core/error.h"

namespace pymerge {

inline constexpr std::size_t kPage = 4096;

class AlignedBuffer {
 public:
  explicit AlignedBuffer(std::size_t size)
      : size_((size + kPage - 1) / kPage * kPage), data_(allocate(size_), &std::free) {
    if (size_ > 0 && !data_) {
      throw Error(ErrorCode::kResource, "out of memory for a buffer of " + std::to_string(size_) +
                                            " bytes; give a smaller --memory");
    }
  }

  std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  // Buffers of whole huge pages are made of them where the system has some: a direct write then
  // looks up 2 pages, not 1,024 (half of its CPU time).
  static std::byte* allocate(std::size_t size) {
    constexpr std::size_t kHugePage = 2 << 20;
    const bool huge = size > 0 && size % kHugePage == 0;
    void* const data = std::aligned_alloc(huge ? kHugePage : kPage, size);
#ifdef MADV_HUGEPAGE
    if (huge && data != nullptr) madvise(data, size, MADV_HUGEPAGE);
#endif
    return static_cast<std::byte*>(data);
  }

  std::size_t size_;
  std::unique_ptr<std::byte, void (*)(void*)> data_;
};

// A thread's working memory: for kernels, for copies of what they read, and for what they know of
// rows that they will meet again. Each grows to the largest request and is reused.
class Scratch {
 public:
  void* take(std::size_t size) { return grown(work_, size); }
  std::byte* take_copies(std::size_t size) { return grown(copies_, size); }
  void* take_runs(std::size_t size) { return grown(runs_, size); }
  // Another one, for what reading a tensor takes while the memory above is in use.
  Scratch& nested() {
    if (!nested_) nested_ = std::make_unique<Scratch>();
    return *nested_;
  }

 private:
  static std::byte* grown(AlignedBuffer& buffer, std::size_t size) {
    if (size > buffer.size()) buffer = AlignedBuffer(size);
    return buffer.data();
  }

  AlignedBuffer work_{0};
  AlignedBuffer copies_{0};
  AlignedBuffer runs_{0};
  std::unique_ptr<Scratch> nested_;
};

}  // namespace pymerge
