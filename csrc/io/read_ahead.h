// Brings parts of files into memory before they are needed, in the order in which they were asked
// for: one thread that reads as `cat` does, which is what disks and the system's own readahead
// serve best, while the workers are busy with what is there.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

namespace pymerge {

class MappedFile;

class ReadAhead {
 public:
  ReadAhead();
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Errors are left to whoever needs the bytes.
  void ask(std::shared_ptr<const MappedFile> file, std::int64_t offset, std::int64_t length);
  // Drops what is not read yet, and ends the thread. Idempotent.
  void stop();

 private:
  struct Part {
    std::shared_ptr<const MappedFile> file;
    std::int64_t offset;
    std::int64_t length;
  };
  void work();

  std::mutex mutex_;
  std::condition_variable asked_;
  std::deque<Part> parts_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace pymerge
