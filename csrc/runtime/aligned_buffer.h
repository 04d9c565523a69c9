// Page-aligned memory: what direct writes need, and what keeps kernel scratch off shared lines.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "core/error.h"

namespace pymerge {

inline constexpr std::size_t kPage = 4096;

class AlignedBuffer {
 public:
  explicit AlignedBuffer(std::size_t size)
      : size_((size + kPage - 1) / kPage * kPage),
        data_(static_cast<std::byte*>(std::aligned_alloc(kPage, size_)), &std::free) {
    if (size_ > 0 && !data_) {
      throw Error(ErrorCode::kResource, "out of memory for a buffer of " + std::to_string(size_) +
                                            " bytes; give a smaller --memory");
    }
  }

  std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_;
  std::unique_ptr<std::byte, void (*)(void*)> data_;
};

// A thread's working memory: for kernels, and for copies of what they read. Each grows to the
// largest request and is reused.
class Scratch {
 public:
  void* take(std::size_t size) { return grown(work_, size); }
  std::byte* take_copies(std::size_t size) { return grown(copies_, size); }

 private:
  static std::byte* grown(AlignedBuffer& buffer, std::size_t size) {
    if (size > buffer.size()) buffer = AlignedBuffer(size);
    return buffer.data();
  }

  AlignedBuffer work_{0};
  AlignedBuffer copies_{0};
};

}  // namespace pymerge
