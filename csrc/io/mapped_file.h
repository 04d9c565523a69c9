// A read-only file, mapped and open: its bytes in place, a copy of some of them, and hints about
// what is needed and what is not.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "io/map_guard.h"
#include "io/read_ahead.h"

namespace pymerge {

class MappedFile : public std::enable_shared_from_this<MappedFile> {
 public:
  // The unit in which a mapping is cheap: what one fault maps if the page cache holds huge pages.
  static constexpr std::int64_t kHugePage = 2 << 20;

  // `in_place`: reading through the mapping is allowed, where it is cheap; pages stay resident
  // until done_with(). `read_ahead` is who brings in what is needed; may be null. Throws Error if
  // the file cannot be opened or mapped.
  explicit MappedFile(std::string path, bool in_place = true,
                      std::shared_ptr<ReadAhead> read_ahead = nullptr);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::int64_t size() const { return size_; }
  const std::byte* data() const { return data_; }
  int descriptor() const { return fd_; }

  // Whether reading [offset, offset + length) through the mapping beats read(): true if the page
  // cache holds this file in huge pages, which is found out by touching some the first time.
  bool is_cheap_in_place(std::int64_t offset, std::int64_t length) const;
  // Copies [offset, offset + length). Throws Error if the file has become shorter or fails.
  void read(std::int64_t offset, std::int64_t length, std::byte* out) const;
  // After reading in place: throws the same Error if not all of it was there. Costs next to
  // nothing.
  void check_whole() const {
    if (guard_ && guard_->lost()) refuse_loss();
  }
  // For when a system call has failed on [offset, offset + length) of the mapping, where no reading
  // shows why: looks at every page, then as above.
  void check_whole(std::int64_t offset, std::int64_t length) const;

  // Has the page cache hold [offset, offset + length), by way of kHugePage bytes at `buffer`;
  // little work where it does.
  void load(std::int64_t offset, std::int64_t length, std::byte* buffer) const;

  // Hints on [offset, offset + length): it will be read soon; drop it from resident memory (the
  // page cache keeps it).
  void will_need(std::int64_t offset, std::int64_t length) const;
  void done_with(std::int64_t offset, std::int64_t length) const;

 private:
  enum class Place { kUnknown, kProbing, kCheap, kCostly };
  bool is_cached(std::int64_t offset) const;
  bool touch_huge_page(std::int64_t begin) const;
  void touch(std::int64_t begin, std::int64_t end) const;
  [[noreturn]] void refuse_loss() const;

  std::string path_;
  std::int64_t size_ = 0;
  int fd_ = -1;
  std::byte* data_ = nullptr;
  std::optional<MapGuard> guard_;
  mutable std::atomic<Place> place_;
  std::shared_ptr<ReadAhead> read_ahead_;
};

}  // namespace pymerge
