#include "io/read_ahead.h"

#include <utility>

#include "core/error.h"
#include "io/mapped_file.h"
#include "runtime/aligned_buffer.h"

namespace pymerge {

ReadAhead::ReadAhead() : thread_([this] { work(); }) {}

ReadAhead::~ReadAhead() { stop(); }

void ReadAhead::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    parts_.clear();
  }
  asked_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void ReadAhead::ask(std::shared_ptr<const MappedFile> file, std::int64_t offset,
                    std::int64_t length) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    parts_.push_back({std::move(file), offset, length});
  }
  asked_.notify_one();
}

void ReadAhead::work() {
  AlignedBuffer buffer(MappedFile::kHugePage);
  for (;;) {
    Part part;
    {
      std::unique_lock lock(mutex_);
      asked_.wait(lock, [this] { return stopping_ || !parts_.empty(); });
      if (stopping_) return;
      part = std::move(parts_.front());
      parts_.pop_front();
    }
    try {
      part.file->load(part.offset, part.length, buffer.data());
    } catch (const Error&) {
      // The worker that needs these bytes meets the same error, and can say for which tensor.
    }
  }
}

}  // namespace pymerge
