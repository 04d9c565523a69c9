// A read-only mapping of a whole file, and hints to the kernel about what is needed and what is
// not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace pymerge {

class MappedFile {
 public:
  // The most that becomes resident around a byte that is read; aligned in the file.
  static constexpr std::int64_t kWindow = 2 << 20;

  // Throws Error if the file cannot be opened or mapped.
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::int64_t size() const { return size_; }
  const std::byte* data() const { return data_; }

  // Hints on [offset, offset + length): start reading it in; drop it from resident memory (the page
  // cache keeps it). Both are advice: failures are ignored.
  void will_need(std::int64_t offset, std::int64_t length) const;
  void done_with(std::int64_t offset, std::int64_t length) const;

 private:
  std::string path_;
  std::int64_t size_ = 0;
  std::byte* data_ = nullptr;
};

}  // namespace pymerge
