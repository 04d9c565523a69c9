#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/error.h"

namespace pymerge {
namespace {

std::int64_t page_size() {
  static const std::int64_t size = sysconf(_SC_PAGESIZE);
  return size;
}

}  // namespace

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_errno("cannot open", path_, errno);
  struct stat status{};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    const int number = S_ISREG(status.st_mode) ? errno : EISDIR;
    close(fd);
    throw_errno("cannot read", path_, number);
  }
  size_ = status.st_size;
  if (size_ > 0) {
    void* data = mmap(nullptr, static_cast<std::size_t>(size_), PROT_READ, MAP_SHARED, fd, 0);
    const int number = errno;
    close(fd);
    if (data == MAP_FAILED) throw_errno("cannot map", path_, number);
    data_ = static_cast<std::byte*>(data);
  } else {
    close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, static_cast<std::size_t>(size_));
}

void MappedFile::will_need(std::int64_t offset, std::int64_t length) const {
  const std::int64_t page = page_size();
  const std::int64_t begin = offset / page * page;
  const std::int64_t end = std::min(offset + length, size_);
  if (begin < end) madvise(data_ + begin, static_cast<std::size_t>(end - begin), MADV_WILLNEED);
}

void MappedFile::done_with(std::int64_t offset, std::int64_t length) const {
  // Outward to whole windows: touching a page maps its neighbors too, and those of a run's edges
  // would otherwise stay for good (29 MB of a 470 MB tensor in 512 KiB runs). How many come along
  // is up to the system: 64 KiB, or since Linux 6.18 all that the page cache holds in one piece, up
  // to 2 MiB. A neighbor that is still being read is simply mapped again.
  const std::int64_t begin = offset / kWindow * kWindow;
  const std::int64_t end = std::min((offset + length + kWindow - 1) / kWindow * kWindow, size_);
  if (begin < end) madvise(data_ + begin, static_cast<std::size_t>(end - begin), MADV_DONTNEED);
}

}  // namespace pymerge
