// A read-only file, mapped and open: its bytes in place, a copy of some of them, and hints to the
// system about what is needed and what is not.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace pymerge {

class MappedFile {
 public:
  // The unit in which a mapping is cheap: what one fault maps if the page cache holds huge pages.
  static constexpr std::int64_t kHugePage = 2 << 20;

  // `in_place`: reading through the mapping is allowed, where it is cheap; pages stay resident
  // until done_with(). Throws Error if the file cannot be opened or mapped.
  explicit MappedFile(std::string path, bool in_place = true);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::int64_t size() const { return size_; }
  const std::byte* data() const { return data_; }
  int descriptor() const { return fd_; }

  // Whether reading [offset, offset + length) through the mapping beats read(): true if the page
  // cache holds this file in huge pages, which is found out by touching one the first time.
  bool is_cheap_in_place(std::int64_t offset, std::int64_t length) const;
  // Copies [offset, offset + length). Throws Error if the file has become shorter or fails.
  void read(std::int64_t offset, std::int64_t length, std::byte* out) const;

  // Hints on [offset, offset + length): start reading it in, unless it is in memory or the system
  // reads far enough ahead by itself; drop it from resident memory (the page cache keeps it). Both
  // are advice: failures are ignored.
  void will_need(std::int64_t offset, std::int64_t length) const;
  void done_with(std::int64_t offset, std::int64_t length) const;

 private:
  enum class Place { kUnknown, kProbing, kCheap, kCostly };
  bool is_cached(std::int64_t offset) const;

  std::string path_;
  std::int64_t size_ = 0;
  int fd_ = -1;
  bool asks_ahead_ = true;
  std::byte* data_ = nullptr;
  mutable std::atomic<Place> place_;
};

}  // namespace pymerge
